"""The console lines of a run, to the letter."""

from pathlib import Path

from tests.training.facts import about, logged, outcome, train_plan
from training.logging import console_text
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
        "step         5/100  loss   2.5000  lr 1.00e-03  norm   0.7500  41.0k tokens/s  300.0 MiB  ETA 1m05s"
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
        "memory     at most device 8.0 GiB (predicted: 9.0 GiB), host 300.0 MiB (predicted: 200.0 MiB)"
    )
