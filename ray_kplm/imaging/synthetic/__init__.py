"""The synthetic category: images of creatures with known landmarks in front of cluttered backgrounds."""
