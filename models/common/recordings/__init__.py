"""Recordings of electrodes, opened by one function for all families."""
