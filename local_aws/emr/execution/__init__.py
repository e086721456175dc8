"""How a step runs: its bootstrap, local command, runtime, logs and supervising process."""
