"""A run is given the promises whose scope it is in, and says why not the others."""

from __future__ import annotations

import pytest

from gearshift.launcher.config import presets
from gearshift.launcher.config.render import render_settings
from tests.launcher.given import LAPTOP, refused, resolved


@pytest.mark.parametrize(
    ("scope", "options", "reason"),
    [
        ("sizes: [tiny]", {}, None),
        ("sizes: [small, full]", {}, "at size small or full, not tiny"),
        ("sizes: [1.3B]", {"model": "abr:tiny"}, "at size 1.3B, not tiny"),  # of another family
        # It trains size lite instead of full.
        ("sizes: [full]", {"model": "event_seg", "mode": "lite"}, None),
        ("sizes: [lite]", {"model": "event_seg", "mode": "lite"}, "at size lite, not full"),
        ("device: gpu", {"machine": LAPTOP}, None),  # it stays open
    ],
)
def test_a_promise_is_made_in_its_scope_only(scope, options, reason):
    run = resolved(f"promise={{step_time: {{at_most: 1, {scope}}}}}", **options)
    assert run.unpromised.get("step_time") == reason
    assert ("step_time" in run.promises) == (reason is None)


def test_out_of_its_scope_a_promise_leaves_that_of_a_layer_below():
    full, lite = (resolved(model=f"abr:{size}", mode="fast") for size in ("full", "lite"))
    general = presets.mode("fast").promise["total_time"]
    assert full.promises["total_time"]["at_most"] < general["at_most"]
    assert lite.promises["total_time"] == general
    assert "at size full, not lite" in lite.unpromised["total_time"]
    assert resolved("promise={total_time: {at_most: 2}}", mode="fast").promises["total_time"] == {
        "at_most": 2
    }


def test_null_withdraws_a_promise():
    run = resolved("promise={total_time: null}", mode="fast")
    assert "total_time" not in run.promises
    assert run.unpromised["total_time"].startswith("withdrawn by --set promise=")
    assert run.values["promise"].value["total_time"] is None  # also where it is read again


def test_the_settings_of_a_run_that_are_read_again_promise_the_same(tmp_path):
    first = resolved("promise={epoch_time: null}", model="event_seg", mode="lite")
    (tmp_path / "settings.yaml").write_text(render_settings(first))
    again = resolved(model=None, configs=[tmp_path / "settings.yaml"])
    assert again.promises == first.promises and "device_peak" in again.promises


@pytest.mark.parametrize(
    ("model", "measures"),
    [
        ("event_seg", {"epoch_time", "device_peak", "peak_memory"}),
        ("abr", {"epoch_time", "device_peak", "peak_memory"}),
        *[(f"{family}:full", set()) for family in ("abr", "event_seg", "eeg_text")],
        ("abr:lite", set()),
        (None, {"epoch_time", "device_peak"}),  # language:small, which lite makes tiny
    ],
)
def test_a_size_that_the_user_names_takes_the_promises_of_lite_away(model, measures):
    run = resolved(model=model, mode="lite")
    assert run.promises.keys() >= measures and bool(run.promises) is bool(measures)
    assert set(run.promises) | set(run.unpromised) >= {"epoch_time", "device_peak", "peak_memory"}


@pytest.mark.parametrize(
    ("promise", "meant"),
    [
        ("{step_time: {needs: [optim.lr]}}", None),
        ("{step_time: {at_mots: 1}}", "at_most"),
        ("{step_tme: {at_most: 1}}", "step_time"),
        ("{step_time: {device: cuda}}", None),
    ],
)
def test_a_wrong_scope_is_an_error_with_the_nearest_name(promise, meant, tmp_path):
    (error,) = refused(f"promise={promise}")
    assert (error.key, error.did_you_mean, bool(error.allowed)) == ("promise", meant, True)
    (tmp_path / "mine.yaml").write_text(f"mode: fast\npromise: {promise}\n")
    (error,) = refused(mode=str(tmp_path / "mine.yaml"))
    assert "mine.yaml:2" in error.where


def test_a_size_that_no_family_has_is_refused():
    (error,) = refused("promise={step_time: {at_most: 1, sizes: [tinny]}}", mode="fast")
    assert (error.key, error.did_you_mean) == ("promise", "tiny")


def test_explain_shows_why_a_promise_is_not_made(said):
    words = ("explain", "promise", "--model", "abr:lite", "--fast")
    for form in ((), ("--json",)):
        assert "at size full, not lite" in str(said(*words, *form))
