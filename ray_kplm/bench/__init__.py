"""Benchmarks that a user can repeat: `kplm bench`. Ratios compare measurements of one run on one machine."""
