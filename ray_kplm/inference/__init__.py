"""Inference with finished runs: landmarks of datasets and of other images."""
