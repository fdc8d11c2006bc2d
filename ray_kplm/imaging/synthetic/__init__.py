"""The synthetic category: creatures with known landmarks in a painted scene."""
