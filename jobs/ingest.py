"""Make a dataset: python jobs/ingest.py SOURCE DATASET [options]; the same as `kplm ingest`."""

import sys

from ray_kplm.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["ingest", *sys.argv[1:]]))
