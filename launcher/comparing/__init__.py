"""Modes and engines side by side: run in turns, measured, held to what they promise."""
