"""How good a set of discovered landmarks is: forward and backward NME and what they need, on plain arrays."""
