"""Export of predicted landmarks to the formats of other tools."""
