"""Presentation of a run: an HTML page, figures and text tables, made from plain arrays and dictionaries."""
