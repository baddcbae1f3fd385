import pytest
import torch

from gearshift.models.base import DataError
from tests.models.errors import error_of


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.csv"
    rows = [f"say {w} {i},{w}" for i, w in enumerate(["yes", "no"] * 30)]
    path.write_text("input,output\n" + "\n".join(rows), encoding="utf-8")
    return path


@pytest.fixture
def corpus(tmp_path):
    """Ten short documents."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in "abcdefghij":
        (folder / f"{name}.txt").write_text(f"text {name} " * 40)
    return folder


def test_facts_contain_counts_splits_and_skipped_rows(tmp_path, ready_task):
    path = tmp_path / "a.csv"
    rows = [f"{'long ' * 30 if i < 3 else ''}ask {i},answer {i}" for i in range(40)]
    rows += ["ask 5,again", "broken", f"ask,{'too long ' * 30}"]
    path.write_text("input,output\n" + "\n".join(rows), encoding="utf-8")
    task = ready_task(path=path, on_bad="skip")
    facts = task.facts()
    assert facts["groups"] == {"train": 33, "val": 4, "test": 4}
    assert sum(facts["samples"].values()) == 40
    assert (facts["duplicates"], facts["skipped_rows"], facts["truncated_prompts"]) == (1, 2, 3)
    assert facts["kind"] == "conversations" and facts["tokenizer"] == "bytes"


def test_bpe_is_trained_on_training_text_only(tmp_path, ready_task):
    for letter in "abcdefghijklmnopqrstuvwxyz":
        (tmp_path / f"{letter}.txt").write_text(f"mark{letter} " * 50, encoding="utf-8")
    task = ready_task(path=tmp_path, tokenizer="bpe", seq_len=16)
    known = " ".join(task.tokenizer.inner.get_vocab())
    for name in ("train", "val", "test"):
        samples = task.data(name)
        for group in {samples.sample(i).name for i in range(len(samples))}:
            assert (f"mark{group[0]}" in known) == (name == "train")


def test_a_preview_shows_a_prompt_and_a_continuation(ready_task, pairs, corpus):
    for settings in ({"path": pairs}, {"path": corpus, "seq_len": 16}):
        task = ready_task(**settings)
        torch.manual_seed(0)
        prompt, written = task.preview(task.build()).split("│")
        assert prompt and written and all(c.isprintable() or c in "\n\t" for c in prompt + written)


def test_flops_are_those_of_the_formula(ready_task, pairs):
    task = ready_task(path="embedded:python", size="small")
    model = task.build()
    matrices = 887_936 - (2 * 4 + 1) * 128  # all but the norms; the tied output counts once
    assert task.flops_per_sample(model) == 6 * matrices * 256 + 12 * 4 * 128 * 256 * 256
    task = ready_task(path=pairs)
    samples = task.data("train")
    lengths = [len(samples.sample(i, None).inputs) for i in range(len(samples))]
    mean = round(sum(lengths) / len(lengths))
    model = task.build()
    matrices = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    expected = 6 * matrices * mean + 12 * 2 * 64 * mean**2
    assert task.flops_per_sample(model) == expected


def weights_of(task, folder):
    """A file of the weights of a new model of `task`, and these weights."""
    from safetensors.torch import save_file

    task.setup()
    torch.manual_seed(3)
    model = task.build()
    own = dict(model.named_parameters())
    save_file(own, folder / "model.safetensors")
    return own


def test_model_start_loads_all_tensors_or_fails(pairs, corpus, make_task, ready_task, tmp_path):
    own = weights_of(make_task(stage="lower", path=str(corpus), seq_len=16), tmp_path)
    task = ready_task(path=pairs, start=str(tmp_path))
    found = dict(task.build().named_parameters())
    assert all(torch.equal(found[name], tensor) for name, tensor in own.items())
    assert task.facts()["start"].startswith(f"loaded {len(own)}/{len(own)} tensors from ")
    with pytest.raises(DataError, match=r"model\.start .* is another model: "):
        make_task(path=pairs, start=str(tmp_path), size="small").build()


def test_stage_lower_freezes_the_upper_half_of_the_layers(pairs, ready_task):
    model = ready_task(path=pairs, stage="lower", size="small").build().train()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    upper = ("model.layers.2.", "model.layers.3.")
    assert (
        frozen == {name for name, _ in model.named_parameters() if name.startswith(upper)}
        and frozen
    )
    assert not model.model.layers[3].training


def test_frozen_layers_stay_and_others_have_the_gradients_of_the_whole_model(pairs, ready_task):
    gradients = []
    for count in (0, 1):
        task = ready_task(path=pairs, freeze_layers=count)
        torch.manual_seed(0)
        model = task.build().train()
        assert task.blocks(model) == list(model.model.layers)
        batch = task.collate([task.data("train").sample(i, None) for i in range(4)])
        task.loss(model, batch).sum.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    whole, upper = gradients
    kept = ("model.embed_tokens.", "model.layers.0.")
    assert set(upper) == {name for name in whole if not name.startswith(kept)} and upper
    assert all(torch.equal(whole[name], gradient) for name, gradient in upper.items())


def test_model_start_gives_its_tokenizer_or_fails(pairs, corpus, make_task, ready_task, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    bpe = {"tokenizer": "bpe", "vocabulary": 300}
    text = make_task(first, stage="lower", path=str(corpus), seq_len=16, **bpe)
    weights_of(text, first)
    task = ready_task(second, path=pairs, start=str(first), **bpe)
    own = (first / "tokenizer.json").read_text()
    assert (second / "tokenizer.json").read_text() == own
    task.build()
    (first / "tokenizer.json").rename(tmp_path / "tokenizer.json")  # no weights beside it
    error = error_of(ready_task, path=pairs, start=str(first), **bpe)
    assert error.message == (
        f"model.start '{first}' has no tokenizer.json, and model.tokenizer is bpe"
    )
    assert error.hint.startswith("--set model.tokenizer=PATH")
