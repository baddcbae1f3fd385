"""Carries out a step on the hardware, owns the world and the names of the state."""
