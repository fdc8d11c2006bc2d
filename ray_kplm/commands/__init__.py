"""The commands of `kplm`, a file for each kind: what they take, and the one function that each calls."""
