"""Discover landmarks: python jobs/train.py CONFIG [key=value ...]; the same as `kplm train`."""

import sys

from ray_kplm.cli.main import main
from ray_kplm.cli.process import run_as_process

if __name__ == "__main__":
    run_as_process(lambda: main(["train", *sys.argv[1:]]))
