"""The lines that people read, to the letter."""

from __future__ import annotations

from pathlib import Path

from tests.training.facts import about, evaluation, logged, outcome, train_plan
from training.logging import console_text
from training.logging.progress import Position
from training.resources.monitor import Near

HALF = Position(50, 100, 5.0, 65.0, False, None)


def test_the_head_tells_what_is_trained_on_what_in_what_portions():
    told = about(
        Path("runs/x"),
        data={"train": 5120, "left_out": {"empty": 3}, "share": 0.125, "from": ["a", "b"]},
        notes=["micro_batch 16 fits"],
    )

    assert console_text.render_header(told, train_plan()) == [
        "model      language:tiny, 1.23M parameters",
        "mode       lite",
        "engine     ddp on 2 processes, cpu, fp32",
        "batch      64 samples = 16 a micro-batch × 2 accumulated × 2 processes",
        "run        100 steps = 2 epochs of 50 steps",
        "data       train 5,120, left out (empty 3), share 0.125, from a b",
        "note       micro_batch 16 fits",
    ]


def test_many_facts_of_the_data_are_wrapped():
    told = about(Path("runs/x"), data={f"split {i}": 10**i for i in range(8)})

    *_, first, second = "\n".join(console_text.render_header(told, train_plan())).splitlines()
    assert first.startswith("data       split 0 1, ") and len(first) < 100
    assert second.startswith("           split")


def test_the_head_of_a_run_that_goes_on_says_so():
    assert "100 steps = 2 epochs of 50 steps, 40 done before" in "\n".join(
        console_text.render_header(about(Path("runs/x")), train_plan(first_step=40, world_size=1))
    )


def test_a_logged_step_is_one_line():
    assert console_text.render_step(logged(5), HALF, "tokens") == (
        "step         5/100  loss   2.5000  lr 1.00e-03  norm   0.7500  41.0k tokens/s"
        "  300.0 MiB     1m05s left"
    )


def test_lines_of_logged_steps_are_aligned():
    small = console_text.render_step(logged(5, loss=12.5, units_per_s=7.0), HALF, "tokens")
    large = console_text.render_step(
        logged(100, loss=0.0625, host_memory_bytes=2**34), HALF, "tokens"
    )

    assert len(small) == len(large)
    assert [i for i, c in enumerate(small) if c == "/"] == [
        i for i, c in enumerate(large) if c == "/"
    ]


def test_what_is_not_known_is_not_shown():
    known = logged(5, mfu=0.4321, skipped=2, parts={"ce": 2.0}, device_memory_bytes=2**33)
    line = console_text.render_step(known, HALF, "tokens")

    assert "ce   2.0000" in line and "mfu 43.2%" in line and "skipped 2" in line
    assert "8.0 GiB" in line and "300.0 MiB" not in line
    assert "mfu" not in console_text.render_step(logged(5), HALF, "tokens")


def test_the_time_left_says_how_sure_it_is():
    assert console_text.render_eta(Position(1, 9, 0.0, None, True, None)) == "–"
    assert console_text.render_eta(Position(2, 9, 0.0, 192.0, True, None)) == ">3m12s"
    assert console_text.render_eta(Position(2, 9, 0.0, 192.0, False, None)) == "3m12s"


def test_an_evaluation_marks_the_best():
    assert console_text.render_evaluation(evaluation(50), 100) == (
        "eval        50/100  val  loss 2.2500  (1.5s)  ← best"
    )
    assert console_text.render_evaluation(evaluation(50, is_best=False), 100).endswith("(1.5s)")


def test_the_summary_tells_how_it_ended():
    ended = outcome(peak_memory_bytes={"device": 2**33, "host": 300 * 2**20})

    assert console_text.render_summary(ended) == [
        "completed  100 steps, 2 epochs in 12s; all steps taken",
        "best       loss 2.2500 at step 50",
        "speed      640 samples/s",
        "memory     at most device 8.0 GiB, host 300.0 MiB",
    ]


def test_a_run_without_best_or_speed_says_nothing_of_them():
    ended = outcome(status="failed", best=None, samples_per_s=None, peak_memory_bytes={})

    assert [line.split()[0] for line in console_text.render_summary(ended)] == ["failed"]


def test_a_line_tells_how_full_the_memory_is_and_nothing_where_nobody_looked():
    assert (
        console_text.render_usage({"ram": 63.4, "swap": 1.0, "gpu": 70.6, "cpu": 99.0})
        == "ram 63%  gpu 71%"
    )
    assert console_text.render_usage({}) == ""


def test_the_summary_tells_what_came_near_to_a_limit():
    near = [Near("ram", 83.0, 85), Near("swap", 61.2, 50.0)]

    assert console_text.render_near_limits(near) == [
        "machine    ram at most 83%, near its limit of 85%; swap at most 61%, over its limit of 50%"
    ]
    assert console_text.render_near_limits([]) == []


def test_any_event_has_a_line_for_the_log():
    assert console_text.render_event("relieved", {"still_over": [], "ram": 41.5}) == (
        "event      relieved  still over , ram 41.5"
    )


def test_what_a_model_writes_cannot_steer_the_terminal():
    wild = "a\x1b[31mb\x07c\rd\xa0e\udc80f\u202eg\n\th é 漢"

    assert console_text.printable(wild) == "a�[31mb�c d e�f�g\n\th é 漢"


def test_steps_that_were_timed_are_told_with_their_spread():
    timing = {
        "steps": 90,
        "warmup_steps": 10,
        "median_s": 0.25,
        "p10_s": 0.2,
        "p90_s": 0.4,
        "batches_per_s": 16.0,
        "samples_per_s": 256.0,
    }
    lines = console_text.render_summary(outcome(timing=timing))
    [told] = [line for line in lines if line.startswith("timing")]
    assert told == (
        "timing     250 ms a step, four in five from 200 to 400, of 90 steps after 10\n"
        "           16 batches/s, 256 samples/s"
    )
    assert not [
        line for line in console_text.render_summary(outcome()) if line.startswith("timing")
    ]
