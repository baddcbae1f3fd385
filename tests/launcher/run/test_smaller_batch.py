"""After out of memory the plan of a run tells the micro-batch that should fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launcher.config.provenance import Batching
from launcher.plan.plan import MARGIN, plan_run
from launcher.plan.target import Described
from launcher.run import smaller_batch
from launcher.run.smaller_batch import Choice, Peak, choose, choose_by_plan
from tests.launcher.given import LAPTOP, ONE_GPU, resolved

FAILED = Batching(global_batch=96, micro_batch=24, accumulation=2, world_size=2)
"""A rank has 48 samples: their divisors below 24 are 16, 12, 8, 6, 4, 3, 2 and 1."""


def chosen(limit: int | None, fixed: int = 0, each: int = 10) -> Choice | None:
    """The choice if a micro-batch of n needs fixed + n * each bytes; 5 % stay free."""
    asked = []

    def peak(numbers: Batching) -> Peak:
        assert numbers.micro_batch * numbers.accumulation == 48
        asked.append(numbers.micro_batch)
        return Peak(fixed + each * numbers.micro_batch, limit, 0.05)

    found = choose(FAILED, peak)
    assert len(asked) <= 5, "the sizes are searched by halves: a plan takes seconds"
    return found


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (239, 16),  # 160 of 239
        (160, 12),  # not 160 of 160: a margin stays free
        (90, 8),
        (40, 3),
        (10, 1),  # nothing fits: the least that there is
    ],
)
def test_if_the_plan_explains_it_the_largest_that_fits_is_taken(limit, expected):
    found = chosen(limit)
    assert found == Choice(expected, 24, 240, 10 * expected, limit)


@pytest.mark.parametrize("limit", [None, 240, 1000])
def test_if_the_plan_does_not_explain_it_half_or_less_is_taken(limit):
    assert chosen(limit) == Choice(12, 24, 240, 120, limit)


def test_if_the_plan_does_not_explain_it_the_peak_must_be_lower_by_the_margin():
    # 12 samples need 100 bytes less than 24 samples, of 2090 to 2310; 5 % are 115.5.
    assert chosen(None, fixed=2090, each=220 // 24) == Choice(8, 24, 2306, 2162, None)


def test_if_no_micro_batch_lowers_the_peak_there_is_no_choice():
    assert chosen(None, fixed=10**6) is None


def test_there_is_none_below_1():
    assert choose(replace(FAILED, micro_batch=1, accumulation=48), lambda _: Peak(9, 8, 0)) is None


def language(micro_batch: int, **choice):
    batch = ("train.global_batch=64", f"train.micro_batch={micro_batch}")
    return resolved("data.seq_len=128", *batch, model="language:tiny", **choice)


@pytest.mark.slow
def test_the_peaks_are_those_of_plans_of_the_device_that_is_short():
    plans = {
        size: plan_run(language(size, machine=ONE_GPU), Described(ONE_GPU)) for size in (32, 8, 4)
    }
    limit = round(plans[8].device_bytes / (1 - MARGIN)) + 1
    assert limit < plans[32].device_bytes / 2
    found = choose_by_plan(language(32, machine=ONE_GPU), Described(ONE_GPU, device_bytes=limit))
    peaks = plans[32].device_bytes, plans[8].device_bytes
    assert found == Choice(8, 32, *peaks, limit)


def test_on_a_cpu_the_peaks_are_those_of_the_host():
    plan_run(language(64), Described(LAPTOP))  # imports what later plans of this process count
    whole = plan_run(language(64), Described(LAPTOP)).host_bytes
    small = replace(LAPTOP, ram_bytes=whole // 2)
    found = choose_by_plan(language(64), Described(small))
    assert found is not None
    assert found.failed_bytes == pytest.approx(whole, rel=0.02)
    assert found.smaller_bytes < found.failed_bytes and found.limit_bytes == small.ram_bytes


def test_a_process_of_its_own_plans():
    found = smaller_batch.planned(language(64))
    assert found is not None
    assert found.failed_micro_batch == 64 and found.micro_batch in (16, 32)
    assert found.smaller_bytes <= (1 - MARGIN) * found.failed_bytes
    assert found.failed_bytes < (found.limit_bytes or 0)


def test_a_plan_that_takes_too_long_is_no_choice(monkeypatch):
    monkeypatch.setattr(smaller_batch, "PLANNING_S", 0.01)
    assert smaller_batch.planned(language(64)) is None


@pytest.mark.slow
def test_a_plan_that_fails_is_no_choice(tmp_path):
    file = tmp_path / "deleted.txt"
    file.write_text("some text")
    deleted = resolved(f"data.path={file}", model="language:tiny")
    file.unlink()
    assert smaller_batch.planned(deleted) is None
