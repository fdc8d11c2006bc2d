"""Measurements that a user can repeat: `kplm bench`. Ratios are of things measured in one run on one machine."""
