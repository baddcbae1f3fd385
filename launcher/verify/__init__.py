"""Verification: replay the last steps of a run and compare every bit."""
