"""Names of the stages of a run that are scored, in file names and results, and their titles."""

WARMUP, STAGE1, STAGE2 = "warmup", "stage1", "stage2"

STAGE_TITLES = {WARMUP: "warm-up", STAGE1: "stage 1", STAGE2: "stage 2"}
"""Title of each stage, in the order in which a run goes through them."""
