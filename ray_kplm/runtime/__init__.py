"""Ray's plumbing: sessions, parts, training workers, views. The only room that imports Ray."""

import os

# Ray reads it when it is imported. Otherwise it warns on a small machine for every pool of actors.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "PYTHON worker processes have been started")
