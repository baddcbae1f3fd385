"""The numbers that every size of the network shares."""

POINTS = 200
"""Samples of a response, at every size."""
STATIC = 4
"""Facts of the examination: age, level, rate, confidence."""
CONDITION = 8
"""Width of what those facts become."""
CLASSES = 5
RELATIVE = 32
"""Farthest distance in time, in positions, that self-attention tells from a farther one."""
