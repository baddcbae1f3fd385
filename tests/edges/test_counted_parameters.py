"""A dry run counts the parameters of the settings that are given, not those of the size."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from launcher.__main__ import main
from launcher.config.schema import task_class
from models.base import Context
from tests.launcher.given import resolved

GIVEN = [
    ("event_seg:tiny", "model.widths=[4,8,12,16]"),
    ("language:tiny", "model.kv_heads=2"),
    ("language:tiny", "data.path=a.md model.tokenizer=bpe"),
    ("language:tiny", "data.path=a.md model.tokenizer=bpe model.vocabulary=300"),
    ("doc_translation:tiny", "model.decoder_layers=3 model.queries=5"),
    ("eeg_text:tiny", "model.tokenizer=bytes"),
    ("abr:tiny", "model.curriculum.peak=1"),
]


@pytest.mark.parametrize(("model", "sets"), GIVEN)
def test_the_dry_run_counts_what_is_built(model, sets, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(Path(__file__).parents[2] / "docs" / "settings.md", "a.md")
    settings = resolved(*sets.split(), model=model).settings
    context = Context(
        seed=0, eval_share=settings.eval.share, folder=tmp_path, device=torch.device("cpu"), attention="auto"
    )
    task = task_class(settings.model.family)(settings.model, settings.data, context)
    if settings.model.family != "event_seg":  # whose network does not depend on data
        task.setup()
    built = sum(parameter.numel() for parameter in task.build().parameters())
    typed = [word for text in sets.split() for word in ("--set", text)]
    assert main(["--model", model, *typed, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == built
