"""Search configurations: python jobs/sweep.py CONFIG [key=value ...] --over ...; the same as `kplm sweep`."""

import sys

from ray_kplm.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
