"""`python -m ray_kplm.cli`."""

from ray_kplm.cli.main import main

if __name__ == "__main__":
    main()
