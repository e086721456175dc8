"""Iceberg tables: readers and writers in Arrow, listings, and rows of tables aligned by key."""
