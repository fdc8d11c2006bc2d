"""Landmarks from unlabelled images of one object category."""
