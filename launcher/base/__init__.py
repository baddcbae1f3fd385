"""Diagnostics, redaction of secrets and exit codes."""
