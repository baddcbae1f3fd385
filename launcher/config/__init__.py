"""Settings: schema, files, layers with provenance, adaptation to the machine, validation."""
