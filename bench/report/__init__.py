"""From measured runs to results.json, the HTML page and the tables of bench/README.md."""
