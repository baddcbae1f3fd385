"""A run without a decoder, or without labels, ends with a model that `predict` uses."""

import shlex

import numpy as np
import pytest

import launcher
from launcher.__main__ import main
from launcher.run.execute import next_command
from models.abr.embedded import read_patients
from tests.docs.pages import ROOT, read
from tests.models.abr.test_prediction import write_table
from tests.models.event_seg.writers import random_events, write_raw

SHORT = {"train.max_steps": 2, "train.preview": False, "report.enabled": False}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_examples_of_the_page_read_the_features_of_a_stage(here, capsys):
    patients = read_patients("embedded:few-patients", "balanced")
    chosen = list(dict.fromkeys(patients.patient.tolist()))[:16]
    rows = np.flatnonzero(np.isin(patients.patient, chosen))
    write_table(here / "table.csv", patients, rows)
    run = launcher.train(
        model="abr:tiny",
        mode="staged",
        settings={"stages": ["encoder"], "data.path": "table.csv", **SHORT},
        out="runs/encoder",
        console=False,
    )
    assert run.folder is not None
    assert main(["predict", "runs/encoder", "--input", "table.csv", "--out", "features"]) == 0
    assert len(list((here / "features").glob("*.npz"))) == len(chosen)
    page = read(ROOT / "docs" / "staged.md")
    names: dict[str, object] = {}
    capsys.readouterr()
    for block in page.blocks:
        if block.language == "python":
            exec(block.text, names)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(rows) + 1
    assert float(said[-1].split()[1].rstrip(",")) > 0.6  # level, from the trace


@pytest.mark.slow
def test_the_last_line_of_a_run_without_labels_can_be_typed(here, capsys):
    write_raw(here / "a.raw", random_events(6000, 1_200_000))
    run = launcher.train(
        model="event_seg:tiny",
        settings={"data.path": "a.raw", "eval.share": 0.3, **SHORT},
        out="runs/mine",
        console=False,
    )
    following = next_command(run.folder)
    assert following is not None
    assert main(shlex.split(following.partition("launcher ")[2])) == 0, capsys.readouterr().err
    assert list((run.folder / "predictions").glob("*.npz"))
