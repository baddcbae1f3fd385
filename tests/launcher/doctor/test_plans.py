"""Engines and modes by plans: what fits, what does not, what cannot run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launcher.doctor.plans import Cell, largest_size, plan_mode
from launcher.plan.plan import Tracing
from launcher.plan.target import Described
from tests.launcher.given import LAPTOP

MIB, GIB = 2**20, 2**30


def planned(mode, *engines, ram=8 * GIB):
    described = Described(replace(LAPTOP, ram_bytes=ram))
    found = plan_mode("language:tiny", mode, engines, described, Tracing())
    return {engine: Cell(**facts) for engine, facts in found.items()}


def test_a_small_model_fits_and_a_small_machine_does_not():
    cell = planned("lite", "local")["local"]
    assert cell.fits and cell.text == "fits" and cell.reason is None
    small = planned("lite", "local", "zero1", ram=100 * MIB)
    assert [each.text for each in small.values()] == ["no", "no"]
    assert small["local"].reason.startswith("does not fit: ")
    assert small["local"].reason.endswith(" of 100.0 MiB")


def test_unknown_memory_is_no_answer():
    cell = planned("lite", "local", ram=None)["local"]
    assert cell.text == "?" and "is unknown" in cell.reason


def test_what_cannot_be_resolved_cannot_run():
    cell = planned("lite", "no-such-engine")["no-such-engine"]
    assert cell.text == "–" and cell.reason.startswith("cannot run here: ")


def test_staged_training_needs_what_its_largest_stage_needs():
    cell = planned("staged", "local")["local"]
    assert cell.fits and cell.needed_bytes > 0


@pytest.mark.slow
def test_the_largest_size_grows_with_the_memory():
    tiny = Described(replace(LAPTOP, ram_bytes=100 * MIB))
    assert largest_size(tiny) is None
    one = largest_size(Described(replace(LAPTOP, ram_bytes=GIB)))
    eight = largest_size(Described(replace(LAPTOP, ram_bytes=8 * GIB)))
    order = ["tiny", "small", "lite", "full", "124M", "350M", "1.3B"]
    assert order.index(one) < order.index(eight) < order.index("1.3B")
