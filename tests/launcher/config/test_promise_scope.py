"""A run is given the promises whose scope it is in, and says why not the others."""

from __future__ import annotations

from itertools import chain

import pytest

from launcher.__main__ import main
from launcher.config import presets
from launcher.config.render import render_settings
from launcher.config.schema import config_of
from models.catalog import FAMILIES
from tests.launcher.given import LAPTOP, ONE_GPU, refused, resolved


def scoped(promise, **options):
    run = resolved(f"promise={{step_time: {promise}}}", **options)
    return run.promises.get("step_time"), run.unpromised.get("step_time")


def test_a_promise_is_made_at_its_sizes_of_mode_default():
    tiny, small = "{at_most: 1, sizes: [tiny]}", "{at_most: 1, sizes: [small, full]}"
    assert scoped(tiny) == ({"at_most": 1, "sizes": ["tiny"]}, None)
    assert scoped(small) == (None, "at most 1 at size small or full, not tiny")
    lite = {"model": "event_seg", "mode": "lite"}  # trains size lite instead of full
    assert scoped("{at_most: 1, sizes: [full]}", **lite)[1] is None
    assert scoped("{at_most: 1, sizes: [lite]}", **lite)[0] is None


def test_a_promise_of_a_cpu_is_not_made_on_a_gpu_and_one_of_a_gpu_stays_open_on_a_cpu():
    assert scoped("{at_most: 1, device: cpu}", machine=ONE_GPU) == (None, "at most 1 on a CPU")
    assert scoped("{at_most: 1, device: cpu}", machine=LAPTOP)[1] is None
    assert scoped("{at_most: 1, device: gpu}", machine=LAPTOP)[1] is None


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
        *[(f"abr:{size}", set()) for size in ("tiny", "lite")],
        ("language:small", set()),
        (None, {"epoch_time", "device_peak"}),  # language:small, which lite makes tiny
    ],
)
def test_a_size_that_the_user_names_takes_the_promises_of_lite_away(model, measures):
    run = resolved(model=model, mode="lite")
    assert run.promises.keys() >= measures and bool(run.promises) is bool(measures)
    assert set(run.promises) | set(run.unpromised) >= {"epoch_time", "device_peak", "peak_memory"}


def test_memory_is_promised_where_micro_batches_can_be_smaller():
    sizes = ("eeg_text", "eeg_text:lite", "doc_translation", "eeg_text:tiny", "abr:lite")
    made = ["device_peak" in resolved(model=m, mode="resource-efficient").promises for m in sizes]
    assert made == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("promise", "message", "meant"),
    [
        ("{step_time: {sizes: [tny]}}", "unknown size 'tny' in promise.step_time.sizes", "tiny"),
        ("{step_time: {needs: [optim.lr]}}", "promise.step_time has no key 'needs'", None),
        ("{step_time: {at_mots: 1}}", "promise.step_time has no key 'at_mots'", "at_most"),
        ("{step_tme: {at_most: 1}}", "unknown name 'step_tme' in promise", "step_time"),
        ("{step_time: 3}", "promise.step_time 3 is not understood", None),
        ("{step_time: {device: cuda}}", "unknown promise.step_time.device 'cuda'", None),
    ],
)
def test_a_wrong_scope_is_an_error_with_the_nearest_name(promise, message, meant, tmp_path):
    (error,) = refused(f"promise={promise}")
    assert error.message.startswith(message)
    assert (error.did_you_mean, bool(error.allowed)) == (meant, True)
    (tmp_path / "mine.yaml").write_text(f"mode: fast\npromise: {promise}\n")
    (error,) = refused(mode=str(tmp_path / "mine.yaml"))
    assert (error.message.startswith(message), "mine.yaml:2" in error.where) == (True, True)


def test_a_file_may_name_sizes_of_another_family():
    assert scoped("{at_most: 1, sizes: [1.3B]}", model="abr:tiny")[1] is not None


def test_shipped_promises_name_sizes_that_exist():
    sizes = {name for family in FAMILIES for name in config_of(family).SIZES}
    blocks = [presets.mode(mode).lines for mode in presets.modes()]
    blocks += [presets.family(name).lines for name in FAMILIES]
    for line in chain(*blocks):
        for bounds in line.value.values() if line.key.endswith("promise") else ():
            assert {*(bounds or {}).get("sizes", ())} <= sizes


def test_explain_shows_why_a_promise_is_not_made(capsys):
    assert main(["explain", "promise", "--model", "abr:lite", "--fast"]) == 0
    assert "total_time: at most 0.34 at size full, not lite" in capsys.readouterr().out
    assert main(["explain", "promise", "--model", "abr:lite", "--fast", "--json"]) == 0
    assert '"total_time": "at most 0.34 at size full, not lite"' in capsys.readouterr().out
