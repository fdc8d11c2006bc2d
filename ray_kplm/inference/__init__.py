"""Landmarks of data sets and of any images."""
