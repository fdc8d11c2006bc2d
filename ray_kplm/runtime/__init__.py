"""Everything that uses Ray: sessions, parallel maps, training workers, data pipelines. No other package imports Ray."""

import os

# Ray reads it on import. Without it, Ray warns about every pool of actors on a small machine.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "PYTHON worker processes have been started")
