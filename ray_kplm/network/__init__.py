"""The hourglass, its heatmaps and its losses."""
