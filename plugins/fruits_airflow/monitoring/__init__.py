"""The guards beside the runs: the cluster janitor and the publication check."""
