"""Diagnostics, exit codes, redaction of secrets and the environment of the process."""
