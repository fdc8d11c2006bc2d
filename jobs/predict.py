"""Landmarks of new images: python jobs/predict.py RUN SOURCE OUT [options]; the same as `kplm predict`."""

import sys

from ray_kplm.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
