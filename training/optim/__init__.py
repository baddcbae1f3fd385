"""Optimizer, schedule, EMA and the handling of non-finite values."""
