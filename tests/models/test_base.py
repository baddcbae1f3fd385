"""Every family keeps the contract of tasks, in every stage and on data of every kind."""

import importlib
import io
import json
import pickle
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file, save_model

from gearshift.engines.preparation import checkpoint_blocks
from gearshift.launcher.config.schema import task_class
from gearshift.models.base import Context, DataError, HasPredictions, PredictsFiles, TracksProgress
from gearshift.models.common.predictions import FixedDraws, few_samples
from gearshift.training.optim.groups import lr_factors
from gearshift.training.settings import Optim
from tests.models.tasks import Draws


@dataclass(frozen=True)
class Case:
    """A family with settings of model and data, what it is scored by and what its loss sums over,
    and the number of pictures of its predictions."""

    family: str
    model: dict[str, Any]
    data: dict[str, Any]
    goal: str
    pictures: int

    def task(self, folder=None, attention="auto", **model):
        """A task of size tiny that is not set up."""
        config = importlib.import_module(f"gearshift.models.{self.family}.config")
        context = Context(0, 0.2, folder, torch.device("cpu"), attention)
        settings = config.Model(**{"size": "tiny"} | self.model | model)
        return task_class(self.family)(settings, config.Data(**self.data), context)

    def ready(self, *args, **model):
        """A task that is set up, at the end of its run."""
        task = self.task(*args, **model)
        task.setup()
        if isinstance(task, TracksProgress):
            task.set_progress(10.0, 10.0)
        return task


PATIENTS = {"path": "embedded:few-patients"}
CARDS = {"path": "embedded:cards", "max_new_tokens": 6}
READING = {"path": "embedded:reading-small", "seq_len": 480}
PYTHON = {"path": "embedded:python", "seq_len": 64, "fraction": 0.2}
PLAIN = {"dropout": 0.0, "word_dropout": 0.0}
CASES = {
    "event_seg": Case("event_seg", {}, {}, "val_iou max pixels", 4),
    "event_seg encoder": Case("event_seg", {"stage": "encoder"}, {}, "val_iou max pixels", 4),
    "language text": Case("language", {"tokenizer": "bpe"}, PYTHON, "val_loss min tokens", 0),
    "language answers": Case(
        "language", {}, {"path": "embedded:commands"}, "val_loss min tokens", 0
    ),
    "abr": Case("abr", {}, PATIENTS, "val_macro_f1 max samples", 1),
    "abr encoder": Case("abr", {"stage": "encoder"}, PATIENTS, "val_macro_f1 max samples", 1),
    "doc_translation": Case("doc_translation", {"dropout": 0.0}, CARDS, "val_bleu max tokens", 3),
    "doc_translation encoder": Case(
        "doc_translation", {"stage": "encoder", "dropout": 0.0}, CARDS, "val_bleu max tokens", 3
    ),
    "eeg_text": Case(
        "eeg_text",
        {"stage": "text", "tokenizer": "bpe"} | PLAIN,
        READING,
        "val_rouge1_gain max tokens",
        3,
    ),
    "eeg_text encoder": Case(
        "eeg_text", {"stage": "encoder"} | PLAIN, READING, "val_masked_r2 max values", 3
    ),
}
ENCODERS = {
    "event_seg": ("down.",),
    "abr": ("static.", "input.", "encoder.", "bottleneck."),
    "doc_translation": ("global_encoder.", "local_encoder."),
    "eeg_text": ("encoder.",),
}
"""What a whole model has in common with its stage encoder."""
MASKED = ("eeg_text",)
"""Families whose stage encoder learns from masked inputs."""


ALIKE = [f"{family} encoder" for family in ENCODERS if family not in MASKED]
"""Cases of a network and a loss that another case has, with frozen parts."""


@pytest.fixture(
    scope="module",
    params=[
        *(name for name in CASES if name not in ALIKE),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ALIKE),
    ],
)
def case(request):
    torch.set_num_threads(1)
    return CASES[request.param]


@pytest.fixture(scope="module")
def folder(case, tmp_path_factory):
    return tmp_path_factory.mktemp(case.family) / "run"


@pytest.fixture(scope="module")
def task(case, folder):
    folder.mkdir()
    return case.ready(folder)


def built(task):
    torch.manual_seed(0)
    return task.build()


def rows_of(task, split, count):
    return [task.data(split).sample(number, FixedDraws()) for number in range(count)]


def total(task, model, batch):
    """The sums of all terms of the loss together."""
    sums = task.loss(model, batch).sum
    return torch.stack(
        [x.reshape(()) for x in (sums.values() if isinstance(sums, dict) else [sums])]
    ).sum()


def gradients(task, model, *batches):
    model.zero_grad()
    for batch in batches:
        total(task, model, batch).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def test_parts_of_a_batch_add_up_to_the_whole_and_reach_every_parameter(task):
    model, rows = built(task).eval(), rows_of(task, "train", 6)
    whole, parts = task.collate(rows), [task.collate(rows[:2]), task.collate(rows[2:])]
    units = [task.num_units(part) for part in (whole, *parts)]
    if isinstance(units[0], dict):
        assert units[0] == {name: units[1][name] + units[2][name] for name in units[0]}
    else:
        assert units[0] == units[1] + units[2] > 0
    loss = total(task, model, whole)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        sum(total(task, model, p) for p in parts), loss, rtol=1e-4, atol=1e-3
    )
    apart = gradients(task, model, *parts)
    for name, gradient in gradients(task, model, whole).items():
        assert gradient is not None, name
        torch.testing.assert_close(apart[name], gradient, rtol=1e-3, atol=1e-3, msg=name)


def test_counts_of_parts_of_a_split_add_up_to_those_of_the_whole(task):
    model, rows = built(task).eval(), rows_of(task, "val", 5)
    counts = [
        sum(
            task.metric().update(model, task.collate(rows[at : at + size]))
            for at in range(0, 5, size)
        )
        for size in (5, 2)
    ]
    whole = counts[0]
    is_exact = whole == whole.round()
    for parts in counts[1:]:
        assert whole.dtype == parts.dtype == torch.float64 and whole.dim() == 1
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)
        assert torch.equal(parts[is_exact], whole[is_exact])


def test_16_bits_give_nearly_the_loss_of_32(task):
    model, batch = built(task).eval(), task.collate(rows_of(task, "train", 4))
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            loss = total(task, model, batch)
        assert loss.dtype == torch.float32
        # Two or three digits of a number remain.
        torch.testing.assert_close(loss, total(task, model, batch), rtol=0.02, atol=0)


def test_kernels_of_attention_and_recomputed_blocks_give_the_same_gradients(case, task):
    batch, context = task.collate(rows_of(task, "train", 4)), task.context
    expected = gradients(task, built(task).eval(), batch)
    for kernel, every in (("flash", 0), ("math", 0), ("math", 1)):
        task.context = replace(context, attention=kernel)
        model = built(task).eval()
        task.context = context
        checkpoint_blocks(task.blocks(model), every)
        for name, gradient in gradients(task, model, batch).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["event_seg", "language answers", "abr", "doc_translation", "eeg_text"], indirect=True
)
def test_the_whole_model_compiles_as_one_graph(task):
    torch.compiler.reset()
    model, batch = built(task).eval(), task.collate(rows_of(task, "train", 2))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(total(task, compiled, batch), total(task, model, batch))


def test_a_run_folder_gives_the_second_rank_what_the_first_wrote(case, task, folder):
    def written():
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}

    before, second = written(), case.ready(folder)
    assert written() == before
    assert "split.json" in before and set(before) <= {"split.json", *saved(task)}
    facts = task.facts()
    assert second.facts() == facts == json.loads(json.dumps(facts)) and len(facts) <= 16
    sides = json.loads((folder / "split.json").read_text())
    groups = [set(sides[name]) for name in ("train", "val", "test")]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert [len(group) for group in groups] == list(facts["groups"].values())


def saved(task):
    """The files of a run folder that a task needs instead of its data."""
    folder = task.context.folder
    paths = [folder / name for name in task.saved_files]
    return [
        str(path.relative_to(folder))
        for given in paths
        for path in (given.rglob("*") if given.is_dir() else [given])
        if path.is_file()
    ]


def test_without_its_data_a_task_needs_what_it_saved(case, task, folder, tmp_path):
    later = case.task(folder)
    later.setup_without_data()
    weights = {name: tensor.shape for name, tensor in built(task).state_dict().items()}
    assert {n: tensor.shape for n, tensor in built(later).state_dict().items()} == weights
    for name in saved(task):
        kept = (folder / name).rename(tmp_path / "kept")
        try:
            with pytest.raises(DataError, match=r"cannot be read|not a tok|not exist"):
                case.task(folder).setup_without_data()
        finally:
            kept.rename(folder / name)


def test_inputs_that_are_missing_or_of_another_kind_are_errors(case, folder, task, tmp_path):
    if not isinstance(task, PredictsFiles):
        return
    later = case.task(folder)
    later.setup_without_data()
    model = built(later).eval()
    (tmp_path / "notes.txt").write_text("none")
    for name, problem in (
        ("missing.txt", "--input '{}' does not exist"),
        ("notes.txt", "'{}' has an unknown format"),
    ):
        with pytest.raises(DataError) as error:
            list(later.predict(model, tmp_path / name))
        assert error.value.message == problem.format(tmp_path / name)
        assert error.value.where and error.value.allowed


def train_a_little(task, model, steps=8):
    """A few far too large steps on one batch, which change the outputs of the model."""
    model.train()
    batch = task.collate(few_samples(task.data("train"), 4))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        total(task, model, batch).backward()
        optimizer.step()


def predicted(task, model):
    model.eval()
    with torch.no_grad():
        return task.predictions(model)


def test_predictions_show_a_few_fixed_samples_with_the_current_outputs_of_the_model(case, task):
    assert isinstance(task, HasPredictions)
    assert f"{task.goal.metric} {task.goal.direction} {task.units}" == case.goal
    model = built(task)
    state = torch.get_rng_state()
    first, again = predicted(task, model), predicted(task, model)
    assert torch.equal(state, torch.get_rng_state())
    assert first == again
    assert 3 <= len(first.rows) <= 4 and {len(row) for row in first.rows} == {len(first.columns)}
    assert all(isinstance(cell, str | float | int | None) for row in first.rows for cell in row)
    assert len(first.pictures) == case.pictures
    for picture in first.pictures:
        image = Image.open(io.BytesIO(picture.png))
        assert image.width >= 64 and len(picture.png) < 200_000
    train_a_little(task, model)
    then = predicted(task, model)
    assert then.columns == first.columns and then.rows != first.rows
    assert [row[0] for row in then.rows] == [row[0] for row in first.rows]
    assert [picture.name for picture in then.pictures] == [p.name for p in first.pictures]


@pytest.mark.parametrize(
    "family",
    [
        "event_seg",
        "eeg_text",
        *(pytest.param(f, marks=pytest.mark.slow) for f in ("abr", "doc_translation")),
    ],
)
def test_stage_whole_loads_all_of_the_encoder_and_freezes_it_or_fails(family, tmp_path):
    first = CASES[f"{family} encoder"].ready()
    trained = built(first)
    train_a_little(first, trained, steps=1)
    save_model(trained, str(tmp_path / "model.safetensors"))
    stored = {n: t for n, t in trained.state_dict().items() if n.startswith(ENCODERS[family])}
    case = CASES[family]
    task = case.ready(None, encoder=str(tmp_path), freeze_encoder=True)
    model = built(task)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert all(torch.equal(before[name], tensor) for name, tensor in stored.items())
    count = len(stored)
    assert count > 10
    assert task.facts()["encoder"].startswith(f"loaded {count}/{count} tensors from {tmp_path}")
    train_a_little(task, model, steps=1)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in stored)
    whole = case.ready()
    trained = built(whole)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, p in trained.named_parameters() if p.requires_grad and n not in stored
    }
    part = lr_factors(Optim(groups={"encoder": 0.1}), trained, whole)
    assert part.keys() == {
        n for n, p in trained.named_parameters() if p.requires_grad and n in stored
    }
    assert task.flops_per_sample(model) < whole.flops_per_sample(trained)
    save_file({f"{ENCODERS[family][0]}x": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"model\.encoder .* is another encoder: 0 of "):
        task.build()


@pytest.mark.parametrize("family", MASKED)
def test_masks_change_in_each_training_epoch_and_are_fixed_in_evaluation(family):
    task = CASES[f"{family} encoder"].ready()

    def sample(split, number, epoch):
        return pickle.dumps(task.data(split).sample(number, Draws(epoch)))

    for split, changes in (("train", True), ("val", False)):
        assert sample(split, 4, 0) == sample(split, 4, 0)
        assert (sample(split, 4, 0) != sample(split, 4, 1)) == changes


def test_settings_and_formats_of_families_load_nothing_heavy():
    families = sorted(ENCODERS | {"language": ()})
    names = [
        f"gearshift.models.{family}.{part}" for family in families for part in ("config", "formats")
    ]
    code = (
        f"import sys, {', '.join(names)}; from pathlib import Path;"
        "gearshift.models.language.formats.recognize(Path('README.md'));"
        "heavy = ('torch', 'numpy', 'transformers', 'PIL', 'h5py', 'scipy', 'mne');"
        "sys.exit(', '.join(name for name in heavy if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
