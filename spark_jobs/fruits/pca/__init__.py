"""The PCA: Gramian and its store, spectrum, drift and the registry of published models."""
