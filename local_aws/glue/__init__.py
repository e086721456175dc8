"""The Glue catalog, with the optimistic lock that Iceberg's commits need."""
