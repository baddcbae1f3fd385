"""A run without a decoder ends with a model that `predict` uses."""

import numpy as np
import pytest

import launcher
from launcher.__main__ import main
from models.abr.embedded import read_patients
from tests.docs.pages import ROOT, read
from tests.models.abr.test_prediction import write_table

SHORT = {"train.max_steps": 2, "train.preview": False, "report.enabled": False}


@pytest.mark.slow
def test_the_examples_of_the_page_read_the_features_of_a_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    patients = read_patients("embedded:few-patients", "balanced")
    chosen = list(dict.fromkeys(patients.patient.tolist()))[:16]
    rows = np.flatnonzero(np.isin(patients.patient, chosen))
    write_table(tmp_path / "table.csv", patients, rows)
    run = launcher.train(
        model="abr:tiny",
        mode="staged",
        settings={"stages": ["encoder"], "data.path": "embedded:few-patients", **SHORT},
        out="runs/encoder",
        console=False,
    )
    assert run.folder is not None
    assert main(["predict", "runs/encoder", "--input", "table.csv", "--out", "features"]) == 0
    assert len(list((tmp_path / "features").glob("*.npz"))) == len(chosen)
    page = read(ROOT / "docs" / "staged.md")
    names = {}
    capsys.readouterr()
    for block in page.blocks:
        if block.language == "python":
            exec(block.text, names)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(rows) + 1
    assert float(said[-1].split()[1].rstrip(",")) > 0.6  # level, from the trace
