"""Families in two stages, as whole command lines: weights, replays, exports.

One trains what it takes from the first stage, and one freezes it.
"""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file

from gearshift.launcher.__main__ import main
from tests.runs.conftest import Program, result, weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
SHORT = ("--max-steps", "4", "--set", "save.every=2", "--set", "log.every=1")
SHORT += ("--set", "train.preview=false")
STAGES = {"event_seg": ("1-encoder", "2-whole"), "language": ("1-lower", "2-upper")}
TAKEN = {"event_seg": ("down.",), "language": ("model.embed_tokens.", "model.layers.0.")}
"""Prefixes of the parameters that the second stage takes from the first."""
SETTINGS = {
    "event_seg": "",
    "language": "data.path=dialogues.jsonl model.tokenizer=bpe model.vocabulary=320 "
    "model.freeze_layers=1 precision=bf16",
}


@dataclass(frozen=True)
class StagedRun:
    """Both stages of a family, trained in one command as `x` in the folder `home`."""

    family: str
    home: Path
    shown: str

    def folders(self, run="x"):
        return [self.home / run / name for name in STAGES[self.family]]

    def command(self, *args):
        """The output of a command line that succeeds."""
        shown = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
            patch.chdir(self.home)
            assert main(args) == 0, shown.getvalue()
        return shown.getvalue()


def train(family, home):
    """A folder with conversations, and the run."""
    rows = [json.dumps({"prompt": f"add {n}", "response": f"it is {n % 7}"}) for n in range(60)]
    (home / "dialogues.jsonl").write_text("\n".join(rows))
    sets = [word for setting in SETTINGS[family].split() for word in ("--set", setting)]
    done = Program(home)(
        "--model", f"{family}:tiny", "--mode", "staged", *SHORT, *sets, "--out", "x"
    )
    assert done.returncode == 0, done.stderr
    assert "no effect" not in done.stderr
    return StagedRun(family, home, done.stdout)


@pytest.fixture(scope="module", params=STAGES)
def staged_run(request, tmp_path_factory):
    return train(request.param, tmp_path_factory.mktemp(request.param))


def test_the_second_stage_keeps_or_trains_the_weights_of_the_first(staged_run):
    first, second = map(weights, staged_run.folders())
    equal = [name for name in first if name in second and first[name].equal(second[name])]
    taken = [name for name in first if name.startswith(TAKEN[staged_run.family])]
    assert taken and set(taken) <= set(equal)
    assert taken == equal or staged_run.family != "language"  # its upper layers learn
    whole = result(staged_run.home / "x")
    facts = result(staged_run.folders()[1])["data"]
    loaded = facts["start" if staged_run.family == "language" else "encoder"]
    count, _, total = loaded.removeprefix("loaded ").split()[0].partition("/")
    assert count == total and int(count) >= len(taken)
    assert f"loaded {count}/{total} tensors" in " ".join(staged_run.shown.split())
    assert whole["parameters"] == whole["stages"][1]["parameters"]


@pytest.mark.parametrize("staged_run", ["language"], indirect=True)
def test_a_later_stage_is_verified_and_exported_as_any_run(staged_run):
    one, other = (
        json.loads((path / "tokenizer.json").read_text()) for path in staged_run.folders()
    )
    assert one == other
    folder = staged_run.folders()[1]
    done = Program(staged_run.home)("verify", f"x/{folder.name}")  # with the threads of a run
    assert done.returncode == 0, done.stdout + done.stderr
    staged_run.command("export", f"x/{folder.name}", "--format", "safetensors", "--out", "exported")
    exported = load_file(staged_run.home / "exported" / "model.safetensors")
    assert exported.keys() == weights(folder).keys()
