"""`--fast` is `--mode fast`, and settings of the user override the mode at any position."""

from itertools import permutations

import pytest

from launcher.cli.parser import read
from launcher.config.options import OPTIONS
from launcher.config.resolve import resolve
from models.catalog import FAMILIES
from tests.launcher.given import LAPTOP, SERVER

SHORT = [option.mode for option in OPTIONS if option.mode]


def settings(*args, machine=LAPTOP):
    request = read(args)
    assert not request.diagnostics
    return resolve(request.args, machine).settings


def test_every_mode_option_is_a_mode():
    assert SHORT == ["lite", "resource-efficient", "fast", "ultra-fast", "benchmark"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", SHORT)
def test_a_mode_option_gives_the_settings_of_the_mode(mode, family):
    for machine in (LAPTOP, SERVER):
        short = settings(f"--{mode}", "--model", family, machine=machine)
        assert short == settings("--mode", mode, "--model", family, machine=machine)
        assert short != settings("--model", family, machine=machine)


@pytest.mark.parametrize("mode", [["--fast"], ["--mode", "fast"], ["--mode=fast"]])
def test_options_override_the_mode_at_any_position(mode):
    others = [["--lr", "3e-3"], ["--epochs", "7"], ["--set", "eval.share=0.3"]]
    found = {
        settings("--model", "abr", *(arg for part in order for arg in part)).model_dump_json()
        for order in permutations([mode, *others])
    }
    assert len(found) == 1
    run = settings("--model", "abr", *mode, *(arg for part in others for arg in part))
    assert (run.optim.lr, run.train.epochs, run.eval.share) == (3e-3, 7, 0.3)
    assert (run.loader.prefetch, run.stop.patience) == (
        4,
        8,
    )  # values of the mode


@pytest.mark.parametrize("option", ["--batch-size", "--num-workers", "--precision", "--seq-len"])
def test_any_short_option_overrides_the_mode_before_or_after_it(option):
    values = {"--batch-size": "2", "--num-workers": "0", "--precision": "bf16", "--seq-len": "64"}
    args = [option, values[option]]
    before = settings("--model", "language", *args, "--resource-efficient")
    after = settings("--model", "language", "--resource-efficient", *args)
    assert before == after != settings("--model", "language", "--resource-efficient")
