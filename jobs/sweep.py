"""Search configurations: python jobs/sweep.py CONFIG [key=value ...] --over ...; the same as `kplm sweep`."""

import sys

from ray_kplm.cli.main import main
from ray_kplm.cli.process import run_as_process

if __name__ == "__main__":
    run_as_process(lambda: main(["sweep", *sys.argv[1:]]))
