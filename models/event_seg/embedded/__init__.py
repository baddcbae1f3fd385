"""Recordings that are drawn: moving shapes seen by a simulated event camera."""
