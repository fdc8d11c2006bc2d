"""From descriptors to identities: K-means, duplicates, flips, outliers."""
