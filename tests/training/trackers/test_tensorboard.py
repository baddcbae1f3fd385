"""TensorBoard's own reader finds each step once, with pictures, texts and the settings."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gearshift
from gearshift.models.base import Picture, Predictions
from gearshift.training.logging.metrics import NAME
from tests.launcher.saved_runs import SETTINGS
from tests.training.trackers.tracked_run import Generation


def png(shade):
    file = io.BytesIO()
    Image.new("L", (6, 4), shade).save(file, "PNG")
    return file.getvalue()


def train_generation(folder, first, last, **ended):
    """A generation of a run: a line per step; evaluation and predictions every second step."""
    run = Generation(folder, ("tensorboard",)).begin(first)
    for step in range(first + 1, last + 1):
        run.log(step, parts={"edge": 0.5})
        if step % 2 == 0:
            picture = Picture("page_1", "a *page*", png(step))
            rows = [("<b>|x|</b>", 0.123456)]
            run.evaluate(step).callbacks.predicted(
                Predictions(("given", "score"), rows, [picture]), step
            )
    return run.end(**ended)


def read(run):
    return EventAccumulator(
        str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0}
    ).Reload()


def points(board, tag):
    return [(each.step, each.value) for each in board.Scalars(tag)]


@pytest.mark.slow
def test_curves_are_those_of_the_metrics_file_beside_the_settings(tmp_path):
    gearshift.train(
        model="language:tiny",
        settings=SETTINGS | {"track": ["tensorboard"], "log.every": 1},
        out=tmp_path / "real",
        console=False,
    )
    board, lines = read(tmp_path / "real"), (tmp_path / "real" / NAME).read_text().splitlines()
    train = [line for line in map(json.loads, lines) if line["kind"] == "train"]
    evaluated = [line for line in map(json.loads, lines) if line["kind"] == "eval"]
    drawn = {"train/loss": "loss", "optim/lr": "lr", "perf/units_per_s": "tokens_per_s"}
    drawn |= {"memory/host_bytes": "host_memory_bytes", "time/forward_s": "forward_time_s"}
    for tag, name in drawn.items():
        assert points(board, tag) == [
            (line["step"], float(np.float32(line[name]))) for line in train
        ]
    for name in evaluated[0]["metrics"]:
        values = [(line["step"], float(np.float32(line["metrics"][name]))) for line in evaluated]
        assert points(board, f"eval/{name}") == values
    groups = {tag.split("/")[0] for tag in board.Tags()["scalars"]}
    assert groups - {"machine"} == {"train", "eval", "optim", "perf", "memory", "time"}
    hparams = board.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    assert b"train.max_steps" in hparams and b"engine.name" in hparams


@pytest.mark.parametrize("kept", [6, 0], ids=["killed", "killed before a save"])
def test_a_resumed_run_leaves_no_gap_and_repeats_no_step(tmp_path, kept):
    train_generation(tmp_path, 0, 9, status="stopped", exit_code=75)
    train_generation(tmp_path, kept, 12)
    board = read(tmp_path)
    assert [step for step, _ in points(board, "train/loss")] == list(range(1, 13))
    assert [step for step, _ in points(board, "eval/loss")] == [2, 4, 6, 8, 10, 12]
    encoded = {each.step: each.encoded_image_string for each in board.Images("samples/page_1")}
    pictures = {step: Image.open(io.BytesIO(content)) for step, content in encoded.items()}
    assert {step: picture.getpixel((5, 3)) for step, picture in pictures.items()} == {
        step: (step,) * 3 for step in (2, 4, 6, 8, 10, 12)
    }
