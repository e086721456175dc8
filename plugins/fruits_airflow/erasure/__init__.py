"""Erasure of photos: request, tasks, redaction of exports, receipt and subject access."""
