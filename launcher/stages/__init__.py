"""Staged training: a pipeline of runs, one a stage."""
