"""One driver at a time works on a folder, and one that has lost its lock changes nothing."""

from ray_kplm.locking.lock import FolderLock, lock_folder

__all__ = ["FolderLock", "lock_folder"]
