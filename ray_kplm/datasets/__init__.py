"""Readers of image collections into the ingest step."""
