"""Words of the originals, typed as options and as settings: the message names what to type."""

import json
import shlex

import pytest
import yaml

from launcher.__main__ import main
from launcher.base.diagnostics import fold
from launcher.cli.parser import read
from launcher.commands.catalog import COMMANDS
from launcher.commands.convert import translate
from launcher.config.foreign_files import read as read_original
from launcher.config.foreign_words import OTHERS, SEVERAL, all_words_for, word_files
from launcher.config.options import OPTIONS as OURS
from launcher.config.options import names
from tests.launcher.config.original_words import FILES, OPTIONS, lay_out
from tests.launcher.given import ONE_GPU, refused, resolved
from tests.launcher.hub import cached
from tests.launcher.runs import trained

FLAGS = {option.flag for option in OURS}


def leaves(tree, prefix=""):
    """The dotted keys of a settings file."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


KEYS_OF = {family: list(leaves(yaml.safe_load(text))) for family, text in FILES.items()}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with the data that users of the originals have."""
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    cached(tmp_path / "hub", monkeypatch, "facebook/bart-base")
    return tmp_path


def converted(family, folder):
    """The lines of the file of an original, translated on a machine with a GPU."""
    path = folder / "theirs.yaml"
    path.write_text(FILES[family])
    return translate(read_original(path, "convert").settings, family, has_gpu=True)


EXPECTED = {
    "event_seg": {
        **{"train.micro_batch": 4, "train.epochs": 10, "schedule.warmup": "2 epochs"},
        **{"data.downsample": 2, "data.sequences": ["outdoor_day1"], "eval.share": 0.2},
        **{"model.widths": [32, 64, 128, 256], "eval.every": "1 epoch", "save.every": "2 epochs"},
        **{"log.every": 5, "track": ["tensorboard"], "data.path": "data/mvsec"},
    },
    "language": {
        **{"train.global_batch": 64, "data.seq_len": 1024, "optim.lr": 5e-5, "limits.ram": 70},
        **{"limits.gpu": 75, "limits.swap": 30, "limits.check_every_s": 15, "device": "cpu"},
        **{"mode": "resource-efficient", "save.keep_last": 5, "schedule.warmup": 100},
    },
    "abr": {
        **{"train.global_batch": 128, "train.epochs": 50, "schedule.name": "cosine-restarts"},
        **{"schedule.cycle": "5 epochs", "schedule.t_mult": 1.5, "eval.every": "2 epochs"},
        **{"model.loss.exists": 0.3, "model.loss.class": 2, "model.loss.regression": "huber"},
        **{"model.curriculum.ramp": 3, "optim.betas": [0.9, 0.95], "train.seed": 42},
        **{"memory.empty_cache_every": 100, "eval.metric": "val_macro_f1 max"},
    },
    "doc_translation": {
        **{"train.global_batch": 32, "train.accumulation": 16, "schedule.warmup": "5%"},
        **{"eval.every": 200, "save.every": 500, "log.every": 20, "save.load_best": True},
        **{"data.path": "DoTA_dataset", "model.pretrained": "pretrained", "model.queries": 256},
    },
    "eeg_text": {
        **{"train.global_batch": 8, "data.text_len": 128, "model.mask_share": 0.15},
        **{"stop.patience": 10, "save.every": "5 epochs", "optim.clip_norm": 0.5},
    },
}


@pytest.mark.parametrize("family", FILES)
def test_each_key_of_an_original_is_a_setting_or_has_a_reason_and_trains_as_it_says(family, here):
    rows = converted(family, here)
    assert [row.line.key for row in rows] == KEYS_OF[family]
    assert [row.there for row in rows if row.key is None and not row.reason] == []
    assert not any(row.is_open for row in rows)
    tree = {row.key: row.value for row in rows if row.key is not None}
    (here / "ours.json").write_text(json.dumps(tree))
    run = resolved(model=family, configs=[here / "ours.json"], machine=ONE_GPU)
    assert {key: run.values[key].value for key in EXPECTED[family]} == EXPECTED[family]


@pytest.mark.parametrize("family", OPTIONS)
def test_an_option_of_an_original_is_ours_or_an_error_with_the_line_to_type(family, here, capsys):
    trained(here / "runs" / "mine", resolved(model=family), 100)
    (here / "mine.yaml").write_text(
        "download: {files: [file:///data.jsonl]}\ndata: {path: folder}\n"
    )
    for typed in OPTIONS[family]:
        start = ["--model", family, "--dry-run"]
        if (family == "language" and "learning" in typed) or "download" in typed:
            start += ["--config", "mine.yaml"]
        words = shlex.split(typed)
        code = main([*start, *words])
        said = capsys.readouterr().err
        if words[0] not in FLAGS:
            assert code == 2, typed
            fix = said.strip().splitlines()[-1].strip().removeprefix("fix").strip()
            if fix.startswith("remove it: "):
                continue
            code = main([*start, *shlex.split(fix)])
        assert code == 0, (typed, said, capsys.readouterr().err)


def test_no_word_is_listed_that_no_original_has():
    typed = {}
    for name, text in FILES.items():
        keys = KEYS_OF[name]
        words = [*keys, *yaml.safe_load(text), *(part for key in keys for part in key.split("."))]
        words += [option.split()[0].lstrip("-") for option in OPTIONS[name]]
        typed[name] = {f".{fold(word)}" for word in words}
    for family in {*word_files()} - {OTHERS}:
        having = [family] if family != SEVERAL else list(FILES)
        for original in word_files()[family].words:
            owners = set()
            for name in original.names:
                ending = f".{fold(name)}"
                found = {each for each in having if any(k.endswith(ending) for k in typed[each])}
                assert found, f"no original has {name}"
                owners |= found
            assert family != SEVERAL or len(owners) > 1, original.names


@pytest.mark.parametrize("family", word_files())
def test_an_entry_names_something_that_exists_and_a_word_has_one_entry(family):
    found = [fold(name) for original in word_files()[family].words for name in original.names]
    assert len(found) == len(set(found))
    known = {f for command in COMMANDS.values() for o in command.options for f in (o.flag, o.key)}
    known |= set(names("keys"))
    assert {original.here for original in word_files()[family].words} <= known | {None}
    assert all(word.remark or word.here or word.line for word in word_files()[family].words)


@pytest.mark.parametrize(
    ("typed", "meant", "fix"),
    [
        ("--use_gpu", "--set device", "--set device=auto"),
        ("--use_gpu=False", "--set device", "--set device=cpu"),
        ("--mixed_precision", "--precision", "--precision auto"),
        ("--mixed-precision=no", "--precision", "--precision fp32"),
        ("--logdir 'my logs'", "--out", "--out 'my logs'"),
        ("--max_ram_percent 80", "--set limits.ram", "--set limits.ram=80"),
        ("--ultra_fast", "--ultra-fast", "--ultra-fast"),
        ("--warmup_epochs 1", "--set schedule.warmup", "--set schedule.warmup='1 epoch'"),
        ("--tensorboard", "--track", "--track tensorboard"),
        ("--wandb_project mine", "--track", "--track wandb:mine"),
        ("--mac", "--set limits.profile", "--set limits.profile=mac"),
        ("--cpu-only no", None, "remove it: off unless you ask for it"),
        ("--batch_size 4", "--batch-size", "--batch-size 4"),
        (
            "--base_model google/g --model language",
            "--set model.pretrained",
            "--set model.pretrained=hf:google/g",
        ),
        # The same word of several originals, in that of the family.
        ("--model=abr --num_heads 8", None, "remove it: `model.size` selects the network"),
        ("--num_heads 8 --model event_seg", None, "remove it: the network has convolutions only"),
        ("--model abr --batch_size 4", "--batch-size", "--batch-size 4"),
    ],
)
def test_the_typed_value_is_in_the_line_to_type(typed, meant, fix):
    [found] = read(shlex.split(typed)).diagnostics
    assert (found.did_you_mean, found.fix) == (meant, fix)
    if meant is not None:
        assert list(read(shlex.split(fix.rpartition("  and then  ")[2])).diagnostics) == []


@pytest.mark.parametrize(
    ("typed", "model", "meant", "fix"),
    [
        ("learning_rate=3", "abr", "optim.lr", "--set optim.lr=3"),
        ("training.batch_size=3", "abr", "train.micro_batch", "--set train.micro_batch=3"),
        ("batch_size=3", "doc_translation", "train.global_batch", "--set train.global_batch=3"),
        ("use_gpu=true", "language", "device", "--set device=auto"),
        # A word of another original is known, too, where it has a meaning.
        ("max_ram_percent=70", "event_seg", "limits.ram", "--set limits.ram=70"),
        ("output_dir=here", "abr", "--out", "--out here"),
        ("BART_MODEL=./bart", "eeg_text", "model.pretrained", "--set model.pretrained=./bart"),
        ("embedding_dims=[8, 16]", "event_seg", "model.widths", "--set 'model.widths=[8, 16]'"),
        ("scheduler.patience=5", "abr", None, "remove it: of schedules that do not exist here"),
        ("training.patience=5", "abr", "stop.patience", "--set stop.patience=5"),
        ("wandb_project=null", "abr", None, "remove it: null is the default"),
        ("wandb_project=mine", "abr", "track", "--set track=wandb:mine"),
        # A setting of the section that was named comes first.
        ("continual.lr=0.5", "abr", "continual.lr_scale", "--set continual.lr_scale=0.5"),
    ],
)
def test_a_setting_of_the_originals_is_an_error_with_the_line_to_type(typed, model, meant, fix):
    [found] = refused(typed, model=model)
    assert (found.did_you_mean, found.fix) == (meant, fix)


def test_a_variable_that_only_an_original_reads_is_a_warning(monkeypatch):
    many = {"BART_MODEL": "facebook/bart-base", "TRAIN_EPOCHS": "3", "PRETRAIN_LR": "1e-3"}
    bart = "--set model.pretrained=hf:facebook/bart-base"
    of_many = ["--epochs 3", "--lr 1e-3 --stage encoder", bart]
    # Without an equivalent, of another family, empty, and of any program.
    none = {"HIDDEN_DIM": "4", "TRAIN_EPOCHS": "", "TASKS": "x", "DEBUG": "1"}
    typed = {"MASK_RATIO": "0.2", "TRAIN_EPOCHS": "3"}
    for model, sets, variables, fixes in (
        ("eeg_text:tiny", [], many, of_many),
        (None, [], {"ZUCO_ROOT": "zuco"}, ["--data zuco --model eeg_text"]),
        ("eeg_text:tiny", [], none, []),
        ("language:tiny", [], {"BART_MODEL": "./bart"}, []),
        ("eeg_text:tiny", ["train.epochs=4"], typed, ["--set model.mask_share=0.2"]),
    ):
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            warnings = resolved(*sets, model=model).warnings
        assert [warning.fix for warning in warnings] == fixes
        names = [name for name in variables for warning in warnings if name in warning.message]
        assert len(names) == len(fixes)


def test_in_a_settings_file_the_fix_is_a_line_of_it(tmp_path):
    mine = tmp_path / "mine.yaml"
    curriculum = "advanced:\n  curriculum:\n    peak_start: 2\n"
    mine.write_text(f"use_gpu: false\noptim:\n  learning_rate: 1e-3\n{curriculum}")
    found = refused(model="abr", configs=[mine])
    assert [(diagnostic.where, diagnostic.fix) for diagnostic in found] == [
        (f"{mine}:1 use_gpu", "device: cpu"),
        (f"{mine}:3 optim.learning_rate", "lr: 1e-3"),
        (f"{mine}:6 advanced.curriculum.peak_start", "model.curriculum.peak: 2"),
    ]


def test_a_command_without_the_option_does_not_suggest_it():
    for option in ("--use_gpu", "--visualize"):
        [found] = read(["list", "models", option]).diagnostics
        assert (found.did_you_mean, found.fix) == (None, None)
    # A meaning comes before the absence of one.
    assert next(all_words_for("dropout", "event_seg")).here is None
    assert list(all_words_for("sequence_length", "language")) == []
