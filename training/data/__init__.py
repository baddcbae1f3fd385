"""Samples on their way into the model: their order, their randomness, and who prepares them."""
