"""What is asked of a finished run: evaluation, label-free score, report."""
