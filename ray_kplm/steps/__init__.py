"""The steps of a run. The only room that imports Ray."""

import os

# Read when Ray is imported: a small machine is no fault, and every pool of actors would say so.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "PYTHON worker processes have been started")
