"""What each job starts with: arguments, Spark session, metrics and endpoints."""
