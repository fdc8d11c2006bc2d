"""Figures of a run, drawn from plain arrays."""
