"""What a developer runs here: demo, local run, model, jars, documentation and environments."""
