"""The benchmark: our jobs beside their peers, on the same images, in one go (`make bench`)."""
