"""Discover landmarks: python jobs/train.py CONFIG [key=value ...]; the same as `kplm train`."""

import sys

from ray_kplm.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
