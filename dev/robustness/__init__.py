"""How well altered photos are named: `measure` alters and names them, `write` makes the table, chart and report."""
