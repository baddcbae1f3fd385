"""Combinations of families, modes and engines in which each pair of values occurs.

python -m tests.runs.covering
"""

from itertools import combinations, product

from engines.catalog import ENGINES
from launcher.config import presets
from models.catalog import FAMILIES

AXES = {
    "family": tuple(FAMILIES),
    "mode": tuple(mode for mode in presets.modes() if mode != "staged"),
    "engine": tuple(ENGINES),
}


def pairs(row):
    """The pairs of values in a row, each value with its axis."""
    return set(combinations(enumerate(row), 2))


def covering(*axes):
    """Rows with a value of each axis, in which all pairs of two axes occur; greedy, always the same."""
    candidates = list(product(*axes))
    left, rows = set().union(*map(pairs, candidates)), []
    while left:
        rows.append(max(candidates, key=lambda row: len(pairs(row) & left)))
        left -= pairs(rows[-1])
    return rows


ROWS = covering(*AXES.values())

if __name__ == "__main__":
    for row in ROWS:
        print(*row)
