"""Datasets: ingestion of image collections, the stored dataset, and the images of each round."""
