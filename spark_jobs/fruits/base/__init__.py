"""Schemas, keys, batches, errors and object access that every other room uses."""
