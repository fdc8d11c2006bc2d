"""Score a run: python jobs/evaluate.py RUN [--data DATASET] [--protocol NAME] ...; the same as `kplm evaluate`."""

import sys

from ray_kplm.cli.main import main
from ray_kplm.cli.process import run_as_process

if __name__ == "__main__":
    run_as_process(lambda: main(["evaluate", *sys.argv[1:]]))
