"""What a step runs with: its command, its environment, its process and its logs."""
