"""Engines: one optimizer step on the hardware, the process group and the layout of the state."""
