"""The language family: a decoder-only transformer in the Llama layout."""
