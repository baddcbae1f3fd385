from collections import Counter

from benchmarks import tally
from benchmarks.tally import Tally

ROWS = [
    Tally("local", 2, Counter(all=3), Counter(saving=1, training=2)),
    Tally(
        "ddp", 3, Counter(rank=1, all=1), Counter({"before a step": 2}), ["b: x", "b: y", "c: z"]
    ),
]


def test_a_run_with_several_differences_counts_once():
    assert [row.identical for row in ROWS] == [2, 1]
    assert [row.killed for row in ROWS] == [3, 2]


def test_the_table_ends_with_totals():
    *_, last = tally.table(ROWS).splitlines()
    assert last == "| in all | 5 | 5 | 2 | 2 | 1 | 4 | 0 | 1 | 3 |"


def test_a_saved_tally_is_loaded(tmp_path):
    tally.save(tmp_path / "crash.json", "a command", {"cores": "2"}, ROWS)
    assert tally.load(tmp_path / "crash.json") == ("a command", {"cores": "2"}, ROWS)
