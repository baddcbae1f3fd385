"""Talks to the cluster, without torch."""
