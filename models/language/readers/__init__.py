"""The file formats that text and conversations are read from."""
