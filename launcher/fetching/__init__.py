"""Data fetched from URLs before training: declared, transferred, checked and unpacked."""
