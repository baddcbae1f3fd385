"""The console lines of a run, to the letter."""

from pathlib import Path

import pytest

from tests.training.facts import about, evaluation, logged, outcome, train_plan
from training.logging import console_text
from training.logging.metrics import NearLimit
from training.logging.progress import Position

HALF = Position(50, 100, 5.0, 65.0, False, None)


def test_the_header_names_model_machine_batch_and_length():
    facts = about(
        Path("runs/x"),
        data={"train": 5120, "left_out": {"empty": 3}, "share": 0.125, "from": ["a", "b"]}
        | {"warning": "2 are cut"},
        notes=["micro_batch 16 fits"],
    )
    assert console_text.render_header(facts, train_plan()) == [
        "model      language:tiny, 1.23M parameters",
        "mode       lite",
        "engine     ddp on 2 processes, cpu, fp32",
        "batch      64 samples = micro-batch 16 × accumulation 2 × 2 processes",
        "run        100 steps = 2 epochs of 50 steps",
        "data       train 5,120, left out (empty 3), share 0.125, from a b",
        "warning    2 are cut",
        "note       micro_batch 16 fits",
    ]
    for trained, line in ((facts.parameters, "1.23M"), (4_000, "1.23M parameters, of which 4")):
        facts = about(Path("runs/x"), trainable_parameters=trained)
        assert line in console_text.render_header(facts, train_plan())[0]
        assert ("train" in console_text.render_header(facts, train_plan())[0]) == (trained == 4_000)


def test_a_logged_step_is_one_line_aligned_with_others_of_what_is_known():
    assert console_text.render_step(logged(5), HALF, "tokens") == (
        "step         5/100  loss   2.5000  lr 1.00e-03  norm   0.7500  41.0k tokens/s"
        "  300.0 MiB  ETA 1m05s"
    )
    small = console_text.render_step(logged(5, loss=12.5, units_per_s=7.0), HALF, "tokens")
    other = logged(100, loss=0.0625, host_memory_bytes=2**34)
    large = console_text.render_step(other, HALF, "tokens")
    assert len(small) == len(large)
    slashes = [[i for i, c in enumerate(line) if c == "/"] for line in (small, large)]
    assert slashes[0] == slashes[1]
    known = logged(5, mfu=0.4321, skipped=2, parts={"ce": 2.0}, device_memory_bytes=2**33)
    line = console_text.render_step(known, HALF, "tokens")
    assert "ce   2.0000" in line and "mfu 43.2%" in line and "skipped 2" in line
    assert "8.0 GiB" in line and "300.0 MiB" not in line


def test_the_eta_marks_a_lower_bound():
    assert console_text.render_eta(Position(1, 9, 0.0, None, True, None)) == "ETA –"
    assert console_text.render_eta(Position(2, 9, 0.0, 192.0, True, None)) == "ETA ≥ 3m12s"
    assert console_text.render_eta(Position(2, 9, 0.0, 192.0, False, None)) == "ETA 3m12s"


def test_an_evaluation_marks_the_best():
    assert console_text.render_evaluation(evaluation(50), 100) == (
        "eval        50/100  val  loss 2.2500  (1.5 s)  ← best"
    )
    assert console_text.render_evaluation(evaluation(50, is_best=False), 100).endswith("(1.5 s)")


def test_the_summary_shows_the_end_and_memory_beside_its_prediction():
    ended = outcome(peak_memory_bytes={"device": 2**33, "host": 300 * 2**20})
    assert console_text.render_summary(ended, None) == [
        "finished   100 steps, 2 epochs in 12 s",
        "best       loss 2.2500 at step 50",
        "speed      640 samples/s",
        "memory     at most device 8.0 GiB, host 300.0 MiB",
    ]
    last = console_text.render_summary(ended, {"device": 9 * 2**30, "host": 200 * 2**20})[-1]
    assert last == (
        "memory     at most device 8.0 GiB (predicted: 9.0 GiB), "
        "host 300.0 MiB (predicted: 200.0 MiB)"
    )


@pytest.mark.parametrize(
    ("split", "is_starved", "expected"),
    [
        ({"data_s": 41.0, "forward_s": 55.0, "other_s": 4.0}, False, "waiting for data took 41%"),
        ({"data_s": 41.0, "forward_s": 55.0, "other_s": 4.0}, True, None),  # its advice says so
        ({"data_s": 41.0, "evaluation_s": 35.0}, True, "evaluation took 35%"),
        ({"data_s": 33.0, "forward_s": 60.0, "other_s": 7.0}, False, None),
        ({"forward_s": 20.0, "backward_s": 40.0, "other_s": 40.0}, False, None),
        ({"saving_s": 9.9}, False, None),  # a few seconds
        (None, False, None),
    ],
)
def test_the_summary_names_a_part_that_takes_a_third_of_the_time(split, is_starved, expected):
    wall_s = 12.0 if split == {"saving_s": 9.9} else 100.0
    ended = outcome(wall_s=wall_s, time_split=split)
    lines = console_text.render_summary(ended, None, is_starved)
    found = [line for line in lines if line.startswith("time ")]
    assert found == ([f"time       {expected} of the time"] if expected else [])


def test_the_summary_has_the_reason_of_another_end_and_the_test_split():
    ended = outcome(reason="stop.after: reached step 9", test={"step": 50, "metrics": {"loss": 2}})
    first, best, test, *_ = console_text.render_summary(ended, None)
    assert first.endswith("in 12 s; stop.after: reached step 9")
    assert (best, test) == (
        "best       loss 2.2500 at step 50",
        "test       loss 2.0000 with the weights of step 50",
    )


def test_a_line_shows_memory_in_use_if_there_was_a_reading():
    assert (
        console_text.render_usage({"ram": 63.4, "swap": 1.0, "gpu": 70.6, "cpu": 99.0})
        == "ram 63%  gpu 71%"
    )
    assert console_text.render_usage({}) == ""


def test_the_summary_lists_resources_near_a_limit():
    near = [NearLimit("ram", 83.0, 85), NearLimit("swap", 61.2, 50.0)]
    assert console_text.render_near_limits(near) == [
        "machine    ram at most 83%, near its limit of 85%; swap at most 61%, over its limit of 50%"
    ]
    assert console_text.render_near_limits([NearLimit("temperature", 91.4, 90.5)]) == [
        "machine    temperature at most 91 °C, over its limit of 90.5 °C"
    ]
    assert console_text.render_near_limits([]) == []


def test_timed_steps_are_summarized_with_their_spread():
    timing = {"steps": 90, "warmup_steps": 10, "median_s": 0.25, "p10_s": 0.2, "p90_s": 0.4}
    timing |= {"batches_per_s": 16.0, "samples_per_s": 256.0}
    lines = console_text.render_summary(outcome(timing=timing), None)
    assert [line for line in lines if line.startswith("timing")] == [
        "timing     median 250 ms per step, 80% from 200 to 400 ms, over 90 steps after 10\n"
        "           16 batches/s, 256 samples/s"
    ]


@pytest.mark.parametrize(
    ("kind", "facts", "text"),
    [
        ("warning", {"text": "careful"}, "careful"),
        (
            "signal",
            {"names": ["SIGTERM"], "saves": True},
            "SIGTERM: saving and stopping after this step",
        ),
        (
            "signal",
            {"names": ["SIGTERM"], "saves": False},
            "SIGTERM: stopping without saving after this step",
        ),
        (
            "signal",
            {"names": ["SIGINT"], "saves": True},
            "SIGINT: saving and stopping after this step; press Ctrl-C again to stop at once",
        ),
        (
            "limit_exceeded_at_start",
            {"over": ["swap"], "swap": 60.0},
            "swap 60%, over its limit before the run: only limits.critical applies to it",
        ),
        (
            "throttled",
            {"critical": ["ram"], "over": ["ram"], "ram": 97.2},
            "ram 97%, over its limit: releasing unused memory",
        ),
        (
            "pressure",
            {"over": ["gpu", "swap"], "gpu": 96.0, "swap": 81.0},
            "gpu 96%, swap 81%, still over its limit: saving and stopping; see limits.*",
        ),
        (
            "limit_given_up",
            {"over": ["cpu"], "cpu": 99.0},
            "cpu 99%, over its limit, and throttling does not help: no longer watched",
        ),
        (
            "disk_filling",
            {"over": ["disk"], "disk": 96.2},
            "disk 96%, over its limit: free some space, or saving will fail",
        ),
        ("fewer_workers", {"from": 4, "to": 2}, "loader workers 4 → 2, to use less of the machine"),
        (
            "smaller_micro_batch",
            {"from": 16, "to": 8, "accumulation": 4},
            "micro-batch 16 → 8, accumulation 4: the global batch stays",
        ),
        (
            "out_of_memory",
            {"at": 7, "text": "CUDA out of memory."},
            "out of memory in step 7: CUDA out of memory.",
        ),
        (
            "straggler",
            {"rank": 5, "host": "n2", "what": "data", "seconds": 0.31, "median_seconds": 0.002},
            "rank 5 on n2 waits 310 ms per step for its data, the others 2 ms",
        ),
        (
            "straggler",
            {"rank": 5, "host": "n2", "what": "step", "seconds": 2.31, "median_seconds": 1.2},
            "rank 5 on n2 computes 2.3 s per step, the others 1.2 s",
        ),
        (
            "straggler_gone",
            {"rank": 5, "host": "n2", "what": "step", "at": 40},
            "rank 5 on n2 is as fast as the others again",
        ),
        ("evaluated", {"step": 3}, None),
    ],
)
def test_urgent_events_are_rendered(kind, facts, text):
    assert console_text.render_urgent(kind, facts) == text
