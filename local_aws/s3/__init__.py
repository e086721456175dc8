"""Where S3 must be stricter, or safer under threads, than moto's."""
