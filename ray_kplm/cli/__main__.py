"""`python -m ray_kplm.cli`."""

import sys

from ray_kplm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
