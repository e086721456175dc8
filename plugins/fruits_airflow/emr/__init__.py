"""EMR clusters: request body, lint rules, life cycle, steps, step logs and code bundle."""
