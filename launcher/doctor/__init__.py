"""Checks of this machine and installation, and what can run here."""
