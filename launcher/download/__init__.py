"""Download of the data that settings declare (--download-data)."""
