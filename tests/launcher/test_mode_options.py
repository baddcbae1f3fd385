"""Settings of the user override the mode at any position."""

from itertools import permutations

from launcher.cli.parser import read
from launcher.config.options import OPTIONS
from launcher.config.resolve import resolve
from tests.launcher.given import LAPTOP


def settings(*args):
    request = read(args)
    assert not request.diagnostics
    return resolve(request.args, LAPTOP).settings


def test_every_mode_option_is_a_mode():
    modes = [option.mode for option in OPTIONS if option.mode]
    assert modes == ["lite", "resource-efficient", "fast", "ultra-fast", "benchmark"]


def test_options_override_the_mode_at_any_position():
    others = [["--lr", "3e-3"], ["--epochs", "7"], ["--set", "eval.share=0.3"]]
    others += [["--batch-size", "2"], ["--num-workers", "0"], ["--precision", "bf16"]]
    run = settings("--model", "abr", "--fast", *(word for part in others for word in part))
    assert (run.optim.lr, run.train.epochs, run.eval.share) == (3e-3, 7, 0.3)
    assert (run.train.micro_batch, run.loader.workers, run.precision) == (2, 0, "bf16")
    assert (run.loader.prefetch, run.stop.patience) == (4, 8)  # values of the mode
    for mode in (["--fast"], ["--mode", "fast"], ["--mode=fast"]):
        for first, second in permutations((mode, *others), 2):
            rest = [part for part in (mode, *others) if part not in (first, second)]
            words = [word for part in (first, *rest, second) for word in part]
            assert settings("--model", "abr", *words) == run, words
