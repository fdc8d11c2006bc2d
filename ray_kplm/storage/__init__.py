"""Storage: folders on a disk or an object store, and what makes their content trustworthy."""

from ray_kplm.storage.folder import NO_SPACE, Folder, Guard, about_space, copy_file

__all__ = ["NO_SPACE", "Folder", "Guard", "about_space", "copy_file"]
