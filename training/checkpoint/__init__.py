"""The state on disk: format, writer, reader, and which checkpoints are kept."""
