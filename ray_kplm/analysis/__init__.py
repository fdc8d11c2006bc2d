"""Analysis of finished runs: scores against the annotation, label-free quality and the report."""
