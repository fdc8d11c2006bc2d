"""Synthetic categories: images of creatures and of animals with known landmarks in front of cluttered backgrounds."""
