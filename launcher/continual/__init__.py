"""Continual learning: training on data as it arrives."""
