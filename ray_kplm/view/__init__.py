"""A page of this machine to look at landmarks and to correct them: `kplm view`."""
