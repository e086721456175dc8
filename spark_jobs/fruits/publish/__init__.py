"""Publication: quality gate, samples, export, upkeep and pending rows."""
