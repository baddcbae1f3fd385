"""Each recipe trains and needs what its plan says, on a small model of its architecture."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.plan_error import measured_peak, predicted
from gearshift.launcher.__main__ import main
from gearshift.launcher.config import other_tools, presets
from gearshift.launcher.config.machine import detect_machine
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.config.resolve import resolve
from tests.docs.pages import ROOT, read
from tests.launcher.given import SERVER, refused, resolved
from tests.launcher.hub import COMMIT, serving_hub
from tests.models.language.chats import TEMPLATES, chat_tokenizer, plain

RECIPES = {
    "recipes/gemma3-lora": ("gemma3_text", "zephyr"),
    "recipes/llama3-8b-qlora": ("llama", "llama"),
    "recipes/llama3-zero3-offload": ("llama", "opens <think>"),
    "recipes/qwen3-lora": ("qwen3", "drops reasoning"),
    "recipes/qwen3-qlora": ("qwen3", "chatml"),
    "recipes/smollm3-full": ("smollm3", "chatml"),
}
"""The architecture of each one's model, and a chat template."""
LORA = "recipes/qwen3-lora"


def save_small(folder, kind, template):
    """A model of two layers in the layout of a download."""
    import torch
    import transformers

    size = chat_tokenizer(folder, "byte-level", plain(TEMPLATES[template])).size
    config = transformers.CONFIG_MAPPING[kind](
        vocab_size=size, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=256,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_and_its_plan_is_at_most_3_percent_away(name, tmp_path):
    base = tmp_path / "model"
    save_small(base, *RECIPES[name])
    chats = tmp_path / "chats.jsonl"
    lines = []
    for number in range(60):
        turns = [("user", f"Is {number} even?"), ("assistant", f"{number % 2 == 0} for {number}")]
        messages = [{"role": role, "content": text} for role, text in turns]
        lines.append(json.dumps({"messages": messages}) + "\n")
    chats.write_text("".join(lines))
    sets = (f"model.pretrained={base}", f"data.path={chats}", "train.preview=false")
    here = replace(detect_machine(), gpus=0, device="cpu")
    run = resolve(CliArgs(configs=[Path(name)], sets=[*sets, "data.seq_len=128"]), here, 1)
    plan = predicted(run, here)
    peak = measured_peak(run, 1, name)  # of three steps
    assert plan.device_bytes + plan.offloaded_bytes == pytest.approx(peak.tensors, rel=0.03)


def test_each_recipe_is_resolved_as_it_is_written_without_a_warning(tmp_path):
    assert list(presets.recipes()) == list(RECIPES)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    for name, recipe in presets.recipes().items():
        run = resolved(
            f"model.pretrained={tmp_path}", model=None, configs=[Path(name)], machine=SERVER
        )
        assert recipe.sentence and run.warnings == []
        for line in recipe.lines:
            value = run.values[line.key]
            if line.key != "model.pretrained":
                assert (value.value, value.origin.where) == (line.value, line.where), name


def test_a_recipe_names_a_model_of_the_hub_whose_commit_is_kept(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen3"}')
    with serving_hub(tmp_path / "home", monkeypatch) as server:
        server.add("Qwen/Qwen3-0.6B", tmp_path / "model")
        run = resolved(model=None, configs=[Path(LORA)])
    assert run.settings.model.pretrained == f"hf:Qwen/Qwen3-0.6B@{COMMIT}"


def test_what_recipes_and_pages_name_is_known_where_it_is_misspelled():
    rows = json.loads((ROOT / "benchmarks" / "results" / "fits.json").read_bytes())["rows"]
    named = {row["layout"] for row in rows}
    for recipe in presets.recipes().values():
        lines = {line.key: line.value for line in recipe.lines}
        named.add(lines["model.pretrained"].removeprefix("hf:"))
    assert named <= set(other_tools.table()["repositories"]["model"])


def test_a_file_of_the_path_is_read_instead_of_the_recipe_and_a_typo_is_an_error(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("recipes/qwen3-lroa", "recipes/qwen3-lroa.yaml"):
        (error,) = refused(model=None, configs=[Path(name)])
        assert error.fix == f"--config {LORA}" and LORA in error.allowed
    (tmp_path / "recipes").mkdir()
    own = tmp_path / f"{LORA}.yaml"
    own.write_text("sentence: mine\noptim: {lr: 0.5}\n")
    run = resolved(model=None, configs=[Path(f"{LORA}.yaml")])
    assert run.settings.optim.lr == 0.5 and run.settings.model.pretrained is None


def test_the_chats_of_the_page_are_conversations(tmp_path, monkeypatch):
    (block,) = (b for b in read(ROOT / "docs" / "fine-tune.md").blocks if b.language == "jsonl")
    monkeypatch.chdir(tmp_path)
    Path("chats.jsonl").write_text(block.text)
    assert main(["data", "check", "chats.jsonl", "--model", "language:tiny"]) == 0
