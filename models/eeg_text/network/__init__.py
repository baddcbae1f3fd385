"""The networks: ten regional encoders, a global one, the masked head and the text decoder."""
