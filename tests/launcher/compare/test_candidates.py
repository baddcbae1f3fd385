"""The compared candidates, and what is refused before anything starts."""

from pathlib import Path

import pytest

from gearshift.launcher.__main__ import read
from gearshift.launcher.compare.candidates import decide
from gearshift.launcher.config.argument_list import arguments
from tests.launcher.given import errors_of
from tests.runs.conftest import REQUESTS

pytestmark = pytest.mark.usefixtures("here")
TINY = ["compare", "--model", "language:tiny"]


def decided(*args):
    return decide(read([*TINY, *args]))


def test_every_mode_and_first_mode_default_runs_under_every_engine():
    found = decided("--modes", "fast, lite,fast", "--steps", "3")
    assert [candidate.mode for candidate in found.candidates] == ["default", "fast", "lite"]
    assert found.folder.parent == Path("runs")
    assert found.folder.name.startswith("compare-language-tiny-")
    found = decided("--modes", "fast", "--engines", "local,ddp", "--nproc", "1")
    pairs = [(candidate.mode, candidate.engine) for candidate in found.candidates]
    engines = ("local", "ddp")
    assert pairs == [(mode, engine) for mode in ("default", "fast") for engine in engines]


def test_a_run_gets_the_arguments_of_the_user_and_of_the_comparison():
    words = "--modes fast --engines ddp --nproc 1 --deterministic --lr 1e-3 --set train.seed=3"
    _, fast = decided(*words.split(), "--steps", "2").candidates
    cli_args = arguments(fast.args)
    run = "--model language:tiny --mode fast --engine ddp --lr 1e-3 --nproc 1 --deterministic"
    added = "--set stop.after=2 --set log.every=1 --set train.preview=false"
    assert " ".join(cli_args) == f"{run} --set train.seed=3 {added}"
    again = read(["run", *cli_args])
    assert not again.diagnostics
    assert again.args.sets == list(fast.args.sets)


@pytest.fixture
def requests(tmp_path):
    """Arguments with data of 80 requests, each a group."""
    (tmp_path / "mine.jsonl").write_text(REQUESTS)
    return ["--data", "mine.jsonl", "--modes", "fast,lite"]


def test_a_study_runs_each_candidate_on_each_fold_with_each_seed(requests):
    found = decided(*requests, "--folds", "3", "--seeds", "2", "--seed", "5")
    assert (found.study.title, len(list(found.turns))) == ("3 folds × 2 seeds", 18)
    assert found.run_folder(1, "fold2-seed2").name == "fast-local-fold2-seed2"
    cli_args = arguments(found.candidates[1].args.with_sets(found.study.rounds["fold2-seed2"]))
    assert {"train.seed=6", "data.split_seed=5", "data.fold=2/3"} < set(cli_args)
    assert "--seed" not in cli_args
    all_of = ("--data", "mine.jsonl", "--modes", "fast", "--folds", "groups")
    assert len(decided(*all_of).study.rounds) == 72  # 8 are for test


def test_arguments_without_a_meaning_are_one_error_each_and_nothing_is_written(requests, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    for args, *flags in (
        ("--until soon", "--until"),
        ("--out full", "--out"),
        ("--folds 1", "--folds"),
        ("--folds some", "--folds"),
        ("--seeds 0", "--seeds"),
        (f"--seeds {10**20}", "--seeds"),
        ("--folds 73", "--folds"),  # 72 groups are not for test
        ("--seeds 2 --repeat 2", "--repeat"),
        ("--folds 2 --set data.fold=1/3", "data.fold"),
        ("--steps none --repeat 0 --set train.sede=1", "--steps", "--repeat", "train.sede"),
    ):
        errors = errors_of(decided, *requests, *args.split())
        assert len(errors) == len(flags), args  # an error of both modes once
        for error, flag in zip(errors, flags, strict=True):
            assert flag in (error.where or "") + error.message, args
    assert len(errors_of(decided)) == 1  # neither --modes nor --engines
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "mine.jsonl", "mine.txt"]
