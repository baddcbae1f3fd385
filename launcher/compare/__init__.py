"""Modes and engines compared by measurement."""
