"""Promises are checked against ratios calculated by hand."""

from dataclasses import replace

import pytest

from gearshift.launcher.compare.promises import check
from gearshift.launcher.compare.rows import ComparisonRow

FIELDS = {"step_time": "step_s", "total_time": "total_s", "time_to_metric": "time_to_metric_s"}
FIELDS |= {"peak_memory": "peak_memory_bytes", "host_peak": "host_peak_bytes"}
FIELDS |= {"device_peak": "device_peak_bytes"}
VALUES = {"step_time": 0.4, "total_time": 100.0, "samples_per_s": 20.0, "parameters": 1000}
VALUES |= {"peak_memory": 800, "host_peak": 2000, "metric": 2.0, "time_to_metric": 60.0}


def row(direction="min", **changes):
    values = VALUES | changes
    metric = {"metric": "m", "value": values.pop("metric"), "direction": direction}
    fields = {FIELDS.get(name, name): value for name, value in values.items()}
    return ComparisonRow("m", "fast", "local", metric=metric, **fields)


BASE = row()


def only(promised, figures, base=BASE):
    (found,) = check(promised, figures, base)
    return found.measured, found.kept, found.why


@pytest.mark.parametrize(
    ("name", "value", "bounds", "measured", "kept"),
    [
        ("step_time", 0.2, {"at_most": 0.5}, 0.5, True),
        ("step_time", 0.21, {"at_most": 0.5}, 0.525, False),
        ("samples_per_s", 9.0, {"at_least": 0.4, "at_most": 0.6}, 0.45, True),
        ("samples_per_s", 13.0, {"at_least": 0.4, "at_most": 0.6}, 0.65, False),
        ("samples_per_s", 7.0, {"at_least": 0.4, "at_most": 0.6}, 0.35, False),
        ("parameters", 1000, {"at_least": 1, "at_most": 1}, 1.0, True),
        ("peak_memory", 400, {"at_least": None, "at_most": 0.5}, 0.5, True),
    ],
)
def test_a_ratio_to_mode_default_is_checked_against_its_bounds(name, value, bounds, measured, kept):
    found, is_kept, why = only({name: bounds}, row(**{name: value}))
    assert found == pytest.approx(measured)
    assert (is_kept, why) == (kept, None)


def test_the_ratio_of_a_metric_is_inverted_where_less_is_better():
    least = {"metric": {"at_least": 1}}
    assert only(least, row(metric=1.6))[:2] == (1.25, True)
    assert only(least, row(metric=2.5))[:2] == (0.8, False)
    assert only(least, row("max", metric=0.6), row("max", metric=0.5))[:2] == (1.2, True)
    assert only(least, row(metric=-1.0)) == (None, None, "no ratio is possible")


def test_promises_in_bytes_are_absolute_and_the_only_ones_of_mode_default():
    promised = {"host_peak_bytes": {"at_most": 1999}}
    assert only(promised, row())[:2] == (2000, False)
    assert only(promised, row(host_peak=1999))[:2] == (1999, True)
    promised = {"step_time": {"at_most": 0.001}, "host_peak_bytes": {"at_most": 1}}
    assert [result.name for result in check(promised, row(), None)] == ["host_peak_bytes"]


FAILED = ComparisonRow("m", "fast", "local", error="no memory")


@pytest.mark.parametrize(
    ("name", "figures", "why", "given"),
    [
        ("device_peak", row(), "no GPU", {}),
        ("step_time", FAILED, "the run failed", {}),
        ("step_time", row(), "mode default: the run failed", {"base": FAILED}),
        ("metric", BASE, "the runs were cut short", {"is_cut": True}),
        ("metric", replace(BASE, metric=None), "no evaluation", {}),
        ("metric", row(metric=float("nan")), "not measured", {}),
        ("time_to_metric", row(time_to_metric=None), "needs --until", {}),
        ("total_time", row(total_time=None), "not measured", {}),
    ],
)
def test_what_was_not_measured_neither_keeps_nor_breaks_a_promise(name, figures, why, given):
    (found,) = check({name: {"at_most": 1}}, figures, **{"base": BASE, **given})
    assert (found.measured, found.kept, found.why) == (None, None, why)


def test_a_metric_reached_only_by_mode_default_breaks_the_promise():
    never, unknown = row(time_to_metric=None, never_reached=True), row(time_to_metric=None)
    promised = {"time_to_metric": {"at_most": 0.34}}
    assert only(promised, never)[:2] == (None, False)
    assert only(promised, never, unknown)[1] is None
    assert only(promised, unknown)[1] is None  # not requested
