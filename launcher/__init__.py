"""Reads words and files, decides, starts processes and tells the person."""
