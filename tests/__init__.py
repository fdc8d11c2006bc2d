"""The tests: a package, because another distribution installs one of the same name (sleap-io 0.9)."""
