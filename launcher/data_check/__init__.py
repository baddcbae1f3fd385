"""Inspection of data: format, counts, splits, overlap, pictures."""
