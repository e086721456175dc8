"""The lock of a database, and the runs that own it."""
