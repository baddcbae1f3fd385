"""The command line: parser, options, help and completion."""
