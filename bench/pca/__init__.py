"""The PCA peers: MLlib and scikit-learn, over the same made-up features."""
