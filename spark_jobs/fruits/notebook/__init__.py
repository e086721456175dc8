"""What the notebook does between its cells: listing, photos, jobs in its session, tables without Spark."""
