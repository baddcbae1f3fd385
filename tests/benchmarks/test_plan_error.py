"""Peaks from allocations, the cases, and the table of planned and measured peaks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchmarks.figures import save_rows
from benchmarks.plan_error import (
    SHOWN,
    Case,
    Row,
    _Change,
    _changes,
    _EventType,
    _peak,
    _Step,
    _without_workspaces,
    cases,
    largest,
    table,
    with_others,
)


def test_the_peak_counts_what_is_handed_out_within_the_steps_only():
    changes = [
        _Change(1, 100, 8),
        _Change(2, 200, 90),  # between steps
        _Change(3, 200, -90),
        _Change(11, 300, 4),
        _Change(12, 300, 6),  # given back by a thread that does not report
        _Change(13, 400, 1),
    ]
    step = _Step(10, {}, 12)
    assert _peak(changes, [step]) == 8 + 6
    assert _peak(changes, [step, _Step(13, {}, 14)]) == 8 + 6 + 1


def event(name, at, *children, size=None, end=None):
    """As torch's profiler records an operator, or bytes that are handed out or given back."""
    fields = SimpleNamespace(ptr=100, alloc_size=size)
    typed = (_EventType.Allocation if size else _EventType.TorchOp, fields)
    end_ns = at + 50 if end is None else end
    return SimpleNamespace(
        name=name, start_time_ns=at, end_time_ns=end_ns, children=children, typed=typed
    )


def test_copies_of_gloo_do_not_count_but_what_it_frees_does():
    tree = [
        event("aten::empty", 1, event("[memory]", 2, size=8)),
        event("c10d::_allgather_base_", 3, event("aten::empty", 4, event("[memory]", 5, size=16))),
        event("gloo:all_gather", 6, event("[memory]", 7, size=-8)),
    ]
    assert _changes(tree) == [_Change(2, 100, 8, kernel_end_ns=51), _Change(7, 100, -8)]


def test_what_a_kernel_gives_back_within_its_call_is_a_workspace():
    def kernel(at, *sizes, end):
        children = [event("[memory]", at + n, size=size) for n, size in enumerate(sizes, 1)]
        return event("aten::mm", at, *children, end=end)

    changes = _changes(
        [
            kernel(10, 8, -8, end=15),
            kernel(20, 16, end=25),  # its result
            event("[memory]", 30, size=-16),
        ]
    )
    assert [change.size for change in changes] == [8, -8, 16, -16]
    assert [change.size for change in _without_workspaces(changes)] == [0, 0, 16, -16]


def test_cases_have_every_engine_of_every_family():
    found = [*cases(["abr", "language"], ["local", "zero2"])]
    assert {(case.family, case.engine) for case in found} == {
        (family, engine) for family in ("abr", "language") for engine in ("local", "zero2")
    }
    assert Case("language", "zero2", 4) in found
    assert len(set(found)) == len(found)


def test_the_table_has_the_largest_error_first():
    def row(predicted, *sets, mode="default"):
        return Row("abr", "local", 1, mode, sets, None, predicted, 100, 110, 3)

    lines = table([row(101), row(90, mode="lite"), row(120, "compile=on")]).splitlines()[2:]
    assert [line.split("|")[7] for line in lines] == [" +20.0% ", " -10.0% ", " +1.0% "]
    many = [row(100 + n, f"data.seq_len={n}") for n in range(SHOWN + 1)]
    assert len(table(many).splitlines()) == 2 + SHOWN
    head, _, local, *_ = largest([*many, row(50)]).splitlines()
    assert head == f"| largest of {SHOWN + 2} errors | `abr` |"
    assert local == f"| `local` | -50.0% of {SHOWN + 2} |"


def test_a_part_of_the_cases_keeps_the_rows_of_the_others(tmp_path):
    def row(engine, predicted, *sets):
        return Row("abr", engine, 1, "default", sets, None, predicted, 100, 110, 3)

    file, facts = tmp_path / "rows.json", {"cores": "2"}
    assert with_others(file, [row("local", 1)], facts) == [row("local", 1)]
    old = [row("local", 1), row("zero2", 2), row("local", 3, "precision=bf16")]
    save_rows(file, "command", facts, old)
    found = with_others(file, [row("local", 7)], facts)
    assert [(each.engine, each.predicted) for each in found] == [
        ("local", 7),
        ("local", 3),
        ("zero2", 2),  # no case of the benchmark on one rank: at the end
    ]
    with pytest.raises(RuntimeError, match="cores"):
        with_others(file, [], {"cores": "4"})
