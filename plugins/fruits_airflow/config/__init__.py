"""Settings, run parameters, regions, releases, validators and errors."""
