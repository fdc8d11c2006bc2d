"""Landmarks in formats that other tools open."""
