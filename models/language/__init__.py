"""Language family: a decoder-only transformer in the Llama layout."""
