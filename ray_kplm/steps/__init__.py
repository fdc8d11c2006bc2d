"""The steps of a run, a file each. They work through `runtime` and import no Ray."""
