"""The parts of tasks on a page work on the example."""

import runpy
from types import SimpleNamespace

import torch

from gearshift.models.base import Context, HasPredictions
from tests.docs.pages import ROOT, read

PARTS = [
    block.text
    for block in read(ROOT / "docs" / "own-models.md").blocks
    if block.language == "python"
]


def test_the_predictions_snippet_works_on_the_example(tmp_path):
    images = runpy.run_path(str(ROOT / "docs" / "examples" / "images.py"))["Images"]
    (part,) = (part for part in PARTS if "class Shown(" in part)
    (tmp_path / "part.py").write_text(part, encoding="utf-8")
    task = type("Both", (runpy.run_path(str(tmp_path / "part.py"))["Shown"], images), {})(
        SimpleNamespace(width=4),
        SimpleNamespace(samples=80, noise=0.1),
        Context(0, 0.1, None, torch.device("cpu")),
    )
    task.setup()
    assert isinstance(task, HasPredictions)
    predictions = task.predictions(task.build().eval())
    assert predictions.columns == ("target", "prediction")
    assert [len(row) for row in predictions.rows] == [2] * 4
