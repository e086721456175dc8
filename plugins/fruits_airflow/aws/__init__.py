"""AWS clients, the endpoints that they may call, and links to the console."""
