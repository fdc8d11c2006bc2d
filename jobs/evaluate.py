"""Score a run: python jobs/evaluate.py RUN [--data DATASET] [--protocol NAME] ...; the same as `kplm evaluate`."""

import sys

from ray_kplm.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
