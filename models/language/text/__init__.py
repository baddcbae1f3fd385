"""What there is to learn from: files and records, read in pieces and never held."""
