"""The lake bucket: objects, conditional writes, run notes, listings and object versions."""
