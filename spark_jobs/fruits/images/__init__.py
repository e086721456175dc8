"""Photos: fetching, decoding, cleaning, orientation, rejects and suppression."""
