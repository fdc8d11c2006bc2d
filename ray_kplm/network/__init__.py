"""The hourglass network, its heatmaps, its losses, and the reductions over training workers."""
