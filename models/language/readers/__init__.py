"""Text files and the corpus of documents or conversations read from them."""
