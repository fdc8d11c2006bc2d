"""Landmarks over HTTP: what a request may be, and what it is answered. No Ray; `runtime/serving.py` runs it."""
