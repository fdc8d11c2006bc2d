"""Readers: one module for each layout of a source, with a function that lists it (`dataset.Listing`)."""
