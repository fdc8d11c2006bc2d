"""Landmarks of new images: python jobs/predict.py RUN SOURCE OUT [options]; the same as `kplm predict`."""

import sys

from ray_kplm.cli.main import main
from ray_kplm.cli.process import run_as_process

if __name__ == "__main__":
    run_as_process(lambda: main(["predict", *sys.argv[1:]]))
