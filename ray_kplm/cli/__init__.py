"""The command line, `kplm`."""
