"""From measured runs to results.json and the tables of bench/README.md."""
