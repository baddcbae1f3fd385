"""Recordings from files, read a window at a time."""
