"""Reads words and files, decides, starts processes and tells the person."""

from launcher import own_packages

own_packages.pin()
