"""What runs leave in the lake: schemas of records, digests, samples and shared links."""
