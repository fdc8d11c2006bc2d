"""The steps of a run. The only room that imports Ray."""
