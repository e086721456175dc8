"""An S3 that is stricter than moto's and safe under threads."""
