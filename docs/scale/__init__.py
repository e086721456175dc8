"""What more images would take: docs/scale.md, computed from measured figures and prices."""
