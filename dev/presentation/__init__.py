"""The slides: how they are built, and how the figures on them are taken from a run."""
