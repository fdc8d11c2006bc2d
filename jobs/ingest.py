"""Make a dataset: python jobs/ingest.py SOURCE DATASET [options]; the same as `kplm ingest`."""

import sys

from ray_kplm.cli.main import main
from ray_kplm.cli.process import run_as_process

if __name__ == "__main__":
    run_as_process(lambda: main(["ingest", *sys.argv[1:]]))
