import io
import json

import numpy as np
import pytest
from PIL import Image

import launcher
from models.base import Picture, Predictions
from tests.launcher.saved_runs import SETTINGS
from tests.training.trackers.board import PLUGIN, opened
from tests.training.trackers.tracked_run import Generation
from training.logging.metrics import NAME

FOLDER = "tensorboard"


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
            run.evaluate(step).callbacks.predicted(Predictions(("given", "score"), rows, [picture]), step)
    return run.end(**ended)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A real run; one killed after step 9 and resumed from step 6; one killed before a save."""
    root = tmp_path_factory.mktemp("runs")
    data = tmp_path_factory.mktemp("data") / "mine.jsonl"
    data.write_text("".join(f'{{"prompt": "what is {i}", "response": "{i}"}}\n' for i in range(80)))
    launcher.train(
        model="language:tiny",
        settings=SETTINGS | {"data.path": str(data), "track": ["tensorboard"], "log.every": 1},
        out=root / "real",
        console=False,
    )
    for name, kept in (("killed", 6), ("early", 0)):
        (root / name).mkdir()
        train_generation(root / name, 0, 9, status="stopped", exit_code=75)
        train_generation(root / name, kept, 12)
    return root


@pytest.fixture(scope="module", params=["--load_fast=false", "--load_fast=true"])
def board(runs, request):
    """Both readers of TensorBoard."""
    if request.param.endswith("true"):
        pytest.importorskip("tensorboard_data_server")
    with opened(runs, request.param) as found:
        yield found


@pytest.fixture(scope="module")
def lines(runs):
    return [json.loads(line) for line in (runs / "real" / NAME).read_text().splitlines()]


def curve(lines, kind, name):
    """The points of metrics.jsonl, in the precision of TensorBoard."""
    lines = [line for line in lines if line["kind"] == kind]
    values = (line["metrics"][name] if kind == "eval" else line[name] for line in lines)
    return [(line["step"], float(np.float32(v))) for line, v in zip(lines, values, strict=True)]


@pytest.mark.slow
def test_curves_are_those_of_the_metrics_file(board, lines):
    run = f"real/{FOLDER}"
    drawn = {"train/loss": "loss", "optim/lr": "lr", "optim/grad_norm": "grad_norm"}
    drawn |= {"perf/samples_per_s": "samples_per_s", "memory/host_bytes": "host_memory_bytes"}
    drawn |= {"perf/units_per_s": "tokens_per_s", "time/step_s": "step_time_s"}
    drawn |= {"time/forward_s": "forward_time_s", "time/optimizer_s": "optimizer_time_s"}
    for tag, name in drawn.items():
        assert board.points(run, tag) == curve(lines, "train", name)
    metrics = next(line["metrics"] for line in lines if line["kind"] == "eval")
    for name in metrics:
        assert board.points(run, f"eval/{name}") == curve(lines, "eval", name)
    groups = {tag.split("/")[0] for tag in board.tags("scalars", run)}
    assert groups - {"machine"} == {"train", "eval", "optim", "perf", "memory", "time"}


@pytest.mark.slow
def test_settings_are_in_the_table_of_runs_beside_the_last_metrics(board, runs, lines):
    query = {"colParams": [], "startIndex": 0, "sliceSize": 10, "allowedStatuses": ALL}
    metric = {"metric": {"group": "", "tag": "eval/val_loss"}}
    query["colParams"] = [metric, {"hparam": "optim.lr"}]
    groups = board.json(f"{PLUGIN}hparams/session_groups", {"experimentName": "", **query})
    of = {group["sessions"][0]["name"]: group for group in groups["sessionGroups"]}
    real = of[f"real/{FOLDER}"]
    resolved = json.loads((runs / "real" / "origins.json").read_text())
    assert set(real["hparams"]) <= set(resolved) and len(real["hparams"]) > 50
    assert real["hparams"]["train.max_steps"] == 6
    assert real["hparams"]["train.preview"] == "false"
    assert real["hparams"]["engine.name"] == "local"
    values = {entry["name"]["tag"]: entry["value"] for entry in real["metricValues"]}
    assert values["eval/val_loss"] == curve(lines, "eval", "val_loss")[-1][1]
    assert real["sessions"][0]["status"] == "STATUS_SUCCESS"


ALL = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]


@pytest.mark.slow
def test_a_resumed_run_leaves_no_gap_and_repeats_no_step(board):
    for name in ("killed", "early"):
        run = f"{name}/{FOLDER}"
        assert [step for step, _ in board.points(run, "train/loss")] == list(range(1, 13))
        assert [step for step, _ in board.points(run, "eval/loss")] == [2, 4, 6, 8, 10, 12]
        found = board.pictures(run, "samples/page_1")
        assert list(found) == [2, 4, 6, 8, 10, 12]
        assert all(found[step] == png(step) for step in found)
