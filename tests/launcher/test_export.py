"""A checkpoint is exported to a folder that other programs load."""

import json
import shutil
from importlib.metadata import version

import pytest
import torch
from safetensors.torch import load_file

from gearshift.launcher.base.temporary import temporary_folder
from gearshift.launcher.saved_runs.saved_model import open_model
from gearshift.models.catalog import Family
from gearshift.models.common.data_reports import install_command
from gearshift.models.language.config import SIZES
from gearshift.models.language.model import Transformer
from gearshift.training.checkpoint.reader import open_checkpoint
from tests.launcher.given import python
from tests.launcher.saved_runs import change_state, checkpoint, contents, flip_a_bit
from tests.models.tasks import train_tiny


def average(run, step):
    """The average of the weights, as the checkpoint has it."""
    found = open_checkpoint(checkpoint(run, step))
    return {name: found.tensor("ema", name) for name in found.names()}


@pytest.mark.slow
def test_transformers_computes_the_logits_of_the_average(run, said):
    transformers = pytest.importorskip("transformers")
    before = contents(run)
    out = said("export", run, "--format", "hf")
    assert out.startswith(f"exported step 6 to {run / 'export-hf'}\n")
    ours = Transformer(SIZES["tiny"]).eval()
    ours.load_state_dict(average(run, 6), strict=False)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(run / "export-hf").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "export-hf")
    tokens = torch.tensor([tokenizer("User: what is 7\nAssistant: <file>")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(ours(tokens), theirs(tokens).logits)
    shutil.rmtree(run / "export-hf")
    assert contents(run) == before


def test_plain_safetensors_contain_every_parameter_and_the_facts(run, tmp_path, said):
    out, mine = tmp_path / "mine", tmp_path / ".mine.new" / "stays"
    out.mkdir()
    mine.parent.mkdir()
    mine.touch()
    said("export", run, "--format", "safetensors", "--out", out)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".mine.new"]
    assert mine.exists()
    tensors = load_file(out / "model.safetensors")
    expected = average(run, 6)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    facts = json.loads((out / "config.json").read_text())
    assert (facts["family"], facts["size"], facts["step"]) == ("language", "tiny", 6)
    assert (facts["weights"], facts["parameters"]) == ("ema", SIZES["tiny"].parameters)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert facts["metrics"] == lines[-1]["metrics"]
    assert facts["libraries"]["torch"] == version("torch")


def test_what_a_killed_export_left_goes_and_what_a_running_one_writes_stays(run, tmp_path, said):
    words = ["export", str(run), "--format", "safetensors", "--out", str(tmp_path / "mine")]
    code = f"""
import os
from gearshift.launcher.__main__ import main
from gearshift.launcher.saved_runs import export
export.FORMATS["safetensors"] = lambda *_: os.kill(os.getpid(), 9)
main({words})
"""
    assert python("-c", code).returncode == -9
    (left,) = tmp_path.glob(".mine.gearshift-*")
    with temporary_folder(".held.gearshift-", tmp_path) as held:
        assert not left.exists()
        said(*words)
        assert [*tmp_path.glob(".*gearshift-*")] == [held]


def test_a_missing_tokenizer_or_a_damaged_checkpoint_is_an_error_and_leaves_no_files(run, said):
    bpe = {"model.tokenizer": "bpe"}
    change_state(checkpoint(run, 6), lambda state: state["facts"]["settings"].update(bpe))
    before = contents(run)
    assert "tokenizer.json" in said("export", run, "--format", "hf", code=2)
    assert contents(run) == before
    path = flip_a_bit(checkpoint(run, 6))
    before = contents(run)
    assert f"error: {path} is damaged" in said("export", run, "--format", "safetensors", code=1)
    assert contents(run) == before
    assert not list(run.glob("*export*")) and not list(run.glob(".export*"))


def test_onnx_needs_a_family_with_a_graph_and_the_extra(run, tmp_path, said, monkeypatch):
    err = said("export", run, "--format", "onnx", code=2)
    assert "  allowed       hf, safetensors\n" in err
    monkeypatch.setattr("gearshift.launcher.saved_runs.export.find_spec", lambda name: None)
    monkeypatch.setattr(Family, "task", f"{__name__}:Drawn")
    err = said("export", run, "--format", "onnx", code=2)
    assert f"  fix           {install_command('onnx')}" in err
    assert not (run / "export-onnx").exists()


class Drawn:
    """A task with a graph."""

    def __init__(self, model, data, context):
        pass

    def onnx_model(self, model):
        raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize("family", ["abr", "event_seg"])
def test_onnxruntime_computes_the_outputs_of_the_model(family, tmp_path, said, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    run = tmp_path / "run"
    train_tiny(family, run, 1, train__preview=False, report__enabled=False)
    facts = said("export", run, "--format", "onnx", "--json")
    assert facts["notes"]["checked"].startswith("onnxruntime gives the outputs of the model")
    saved = open_model(str(run), None, "export")
    task = saved.task("cpu")
    whole, inputs = task.onnx_model(saved.load(task))
    session = onnxruntime.InferenceSession(run / "export-onnx" / "model.onnx")
    found = session.run(None, {name: values[:3].numpy() for name, values in inputs.items()})
    with torch.no_grad():
        outputs = whole.eval()(*(values[:3] for values in inputs.values()))
    expected = list(outputs.values()) if family == "abr" else [outputs]
    for theirs, ours in zip(found, expected, strict=True):
        scale = ours.abs().max().item()
        torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=1e-3, atol=1e-3 * scale)
    if family == "event_seg":
        monkeypatch.setattr("gearshift.launcher.saved_runs.export.ONNX_TOLERANCE", -1)
        out = tmp_path / "out"
        err = said("export", run, "--format", "onnx", "--out", out, code=1)
        assert (
            "error: onnxruntime gives another 'output' than the model" in err
        )  # after lines of torch
        assert not out.exists()
