"""What a user chooses of `kplm drift` by name. It imports nothing, for the command line."""

from __future__ import annotations

FOLDER, ALONE = "folder", "none"
GROUPS = (FOLDER, ALONE)
"""How new images depend on each other: images of a folder are alike; each image is one by itself."""
AUTO, FRAME, EXIF, MTIME, NAME, NO_TIME = "auto", "frame", "exif", "mtime", "name", "none"
TIMES = (AUTO, FRAME, EXIF, MTIME, NAME, NO_TIME)
"""What says when an image was made. AUTO: the frame in a video, if there is one video, or EXIF, if most files have it."""
