"""Correspondence of keypoints across images: K-means, duplicate filter, mirror partners, templates, merging."""
