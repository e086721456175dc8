"""The classifier of labels: sums by label, linear discriminant analysis, its evaluation, and the published ones."""
