"""Searching configurations: the space, where to look next, when to stop looking, and what was found so far."""
