"""A new family is one folder, a file of settings and a line of the catalog."""

import json
import random
import shutil
from pathlib import Path

import pytest

from gearshift import ds_configs
from tests import extended

FOLDER = Path(__file__).parent / "new_family"
LINE = """
from gearshift import models
from pathlib import Path
from gearshift.launcher.config import presets
from gearshift.models.catalog import FAMILIES, Family, _encoder, _on_encoder
models.__path__.append({folder!r})
presets.FOLDER = Path({presets!r})
stages = (_encoder("the encoder"), _on_encoder("whole", "the head"))
FAMILIES["flowers"] = Family("flowers", "kinds of flowers", "FlowerTask", stages, predicts=True)
"""


def write_flowers(path, plants, seed):
    draw = random.Random(seed)
    rows = ["plant,kind,a,b,c,d"]
    for plant in range(plants):
        for _ in range(4):
            kind = plant % 3
            rows.append(
                f"{plant},{kind},"
                + ",".join(f"{draw.gauss(kind * (n + 1), 1):.3f}" for n in range(4))
            )
    path.write_text("\n".join(rows))


@pytest.fixture
def launch(tmp_path):
    """A command of a program whose catalog has one more family, in each of its processes."""
    shutil.copytree(Path(ds_configs.__file__).parent, tmp_path / "ds")
    shutil.copy(FOLDER / "flowers" / "flowers.yaml", tmp_path / "ds" / "models")
    return extended.command(tmp_path, LINE.format(folder=str(FOLDER), presets=str(tmp_path / "ds")))


def test_it_has_less_than_a_hundred_lines_of_code():
    texts = [file.read_text() for file in (FOLDER / "flowers").iterdir() if file.is_file()]
    assert sum(bool(line.strip()) for text in texts for line in text.splitlines()) < 100


@pytest.mark.slow
def test_a_new_family_trains_evaluates_predicts_stages_and_shows_itself(launch, tmp_path):
    write_flowers(tmp_path / "flowers.csv", 60, seed=0)
    start = ("--model", "flowers:tiny", "--data", "flowers.csv")
    launch(*start, "--nproc", "2", "--engine", "fsdp", "--out", "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["best"]["metric"] == "val_accuracy" and result["best"]["value"] > 0.8
    scores = json.loads(launch("evaluate", "run", "--split", "test", "--json"))["metrics"]
    assert scores["val_accuracy"] > 0.8
    write_flowers(tmp_path / "new.csv", 3, seed=1)
    found = launch("predict", "run", "--input", "new.csv")
    assert found.count("flower ") == 12 and "kind 2" in found
    report = (tmp_path / "run" / "report.html").read_text()
    assert "val_accuracy" in report and "predicted" in report
    launch(*start, "--mode", "staged", "--out", "staged")
    (whole,) = tmp_path.glob("staged/*whole/result.json")
    facts = json.loads(whole.read_text())["data"]
    assert facts["encoder"].startswith("loaded 2/2 tensors")
    noise = launch(*start, "--set", "data.control=noise", "--out", "noise")
    assert "noise" in noise
