"""One run: planning, forecast, residency, publication, verdict, record and notices."""
