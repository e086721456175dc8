"""Operators, sensors and triggers: thin shells over the other rooms."""
