"""The networks: ten regional encoders, a global one, and what stands on top of them."""
