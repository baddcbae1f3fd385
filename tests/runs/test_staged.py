"""Families in two stages, as whole command lines: weights, engines, replays, exports.

One that trains what it takes from the first stage, and two that freeze it; tests/models/test_base.py has the weights of the others.
"""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file

from launcher.__main__ import main
from tests.runs.conftest import Program, environment, losses, result, weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
SHORT = ("--max-steps", "4", "--set", "save.every=2", "--set", "log.every=1")
SHORT += ("--set", "train.preview=false")


@dataclass(frozen=True)
class Case:
    """What the two stages of a family have in common, and how they are trained here."""

    stages: tuple[str, str]
    taken: tuple[str, ...]
    """Prefixes of the parameters that the second stage takes from the first."""
    metrics: tuple[str, str]
    """What selects the best checkpoint of each stage."""
    engine: str
    """That resumes the second stage; test_families.py has the others."""
    settings: str = ""
    loaded: str = "encoder"
    """The fact of the second stage on the weights that it took."""
    is_frozen: bool = True
    """The second stage keeps what it takes; size tiny of some families trains it, too."""


CASES = {
    "event_seg": Case(("encoder", "whole"), ("down.",), ("val_iou", "val_iou"), "ddp"),
    "eeg_text": Case(
        ("encoder", "text"),
        ("encoder.",),
        ("val_masked_r2", "val_rouge1_gain"),
        "zero2",
        "eval.share=0.05 precision=bf16",
    ),
    "language": Case(
        ("lower", "upper"),
        ("model.embed_tokens.", "model.layers.0."),
        ("val_loss", "val_loss"),
        "fsdp",
        "data.path=dialogues.jsonl model.tokenizer=bpe model.vocabulary=320 "
        "model.freeze_layers=1 precision=bf16",
        "start",
    ),
}
ENCODER_ONLY = """\
import sys, launcher
launcher.train("eeg_text:tiny", "staged", settings={
    "stages": ["encoder"], "train.max_steps": 2, "eval.share": 0.05}, console=False)
print([name for name in sys.modules if name.startswith("models.eeg_text.")])
"""


def arguments(family):
    sets = [word for setting in CASES[family].settings.split() for word in ("--set", setting)]
    return ("--model", f"{family}:tiny", "--mode", "staged", *SHORT, *sets)


@dataclass(frozen=True)
class StagedRun:
    """Both stages of a family, trained in one command as `x` in the folder `home`."""

    family: str
    home: Path
    shown: str

    @property
    def case(self):
        return CASES[self.family]

    def folders(self, run="x"):
        return [self.home / run / f"{n}-{name}" for n, name in enumerate(self.case.stages, 1)]

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
    done = Program(home)(*arguments(family), "--out", "x")
    assert done.returncode == 0, done.stderr
    assert "no effect" not in done.stderr
    return StagedRun(family, home, done.stdout)


@pytest.fixture(scope="module")
def trained():
    """The run of each family so far."""
    return {}


@pytest.fixture(params=CASES)
def staged_run(request, trained, tmp_path_factory):
    family = request.param
    if family not in trained:
        trained[family] = train(family, tmp_path_factory.mktemp(family))
    return trained[family]


def of(*families):
    """The runs of these families only."""
    return pytest.mark.parametrize("staged_run", families, indirect=True)


def test_the_second_stage_keeps_or_trains_the_weights_of_the_first(staged_run):
    case = staged_run.case
    first, second = map(weights, staged_run.folders())
    equal = [name for name in first if name in second and first[name].equal(second[name])]
    taken = [name for name in first if name.startswith(case.taken)]
    assert taken and (set(taken) <= set(equal)) == case.is_frozen
    assert taken == equal or staged_run.family != "language"  # its upper layers learn
    loaded = result(staged_run.folders()[1])["data"][case.loaded]
    assert loaded.startswith("loaded ")
    count, _, total = loaded.split()[1].partition("/")
    assert count == total and int(count) >= len(taken)
    assert f"loaded {count}/{total} tensors" in " ".join(staged_run.shown.split())
    whole = result(staged_run.home / "x")
    assert tuple(stage["best"]["metric"] for stage in whole["stages"]) == case.metrics
    assert whole["parameters"] == whole["stages"][1]["parameters"]
    assert all(stage["peak_memory_bytes"]["host"] > 0 for stage in whole["stages"])


@of("event_seg")
def test_each_stage_is_verified_and_exported_as_any_run(staged_run):
    for folder in staged_run.folders():
        done = Program(staged_run.home)("verify", f"x/{folder.name}")  # with the threads of a run
        assert done.returncode == 0, done.stdout + done.stderr
        out = f"exported-{folder.name}"
        staged_run.command("export", f"x/{folder.name}", "--format", "safetensors", "--out", out)
        exported = load_file(staged_run.home / out / "model.safetensors")
        assert exported.keys() == weights(folder).keys()


@of("eeg_text")
def test_a_killed_second_stage_resumes_under_another_engine(staged_run):
    case, engine = staged_run.case, staged_run.case.engine
    folder = staged_run.home / "killed"
    shutil.copytree(staged_run.home / "x", folder, symlinks=True)
    first, second = staged_run.folders("killed")
    for name in ("best", "last", "result.json"):
        (second / name).unlink()
    shutil.rmtree(second / "checkpoints" / "step-00000004")
    (folder / "result.json").unlink()
    logged = (first / "metrics.jsonl").read_bytes()
    more = ("--engine", engine, "--nproc", "2", "--reset", "optimizer")
    shown = staged_run.command("resume", "killed", *more)
    assert f"resuming killed/{second.name} from step 2" in shown
    assert (first / "metrics.jsonl").read_bytes() == logged
    whole = result(folder)
    assert (whole["status"], whole["engine"], whole["world_size"]) == ("completed", engine, 2)
    assert [stage["steps"] for stage in whole["stages"]] == [4, 4]
    before, after = weights(first), weights(second)
    taken = [name for name in before if name.startswith(case.taken)]
    assert all(before[name].equal(after[name]) for name in taken) == case.is_frozen


@of("language")
def test_the_second_stage_of_language_has_the_tokenizer_of_the_first(staged_run):
    first, second = staged_run.folders()
    one, other = (json.loads((path / "tokenizer.json").read_text()) for path in (first, second))
    assert one == other
    whole = ("--model", "language:tiny", "--mode", "staged")
    shown = staged_run.command(*whole, "--dry-run", "--json")
    assert [stage["name"] for stage in json.loads(shown)["stages"]] == ["lower", "upper"]


def test_the_first_stage_of_eeg_never_imports_the_text_decoder(tmp_path):
    command, place = [sys.executable, "-c", ENCODER_ONLY], {"cwd": tmp_path, "env": environment()}
    done = subprocess.run(command, **place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "models.eeg_text.encoder" in done.stdout
    assert "models.eeg_text.decoder" not in done.stdout


@of("eeg_text")
def test_segments_of_several_windows_train_equally_with_cached_features(staged_run):
    args = (*arguments("eeg_text"), "--stage", "text", "--from", "x", "--set", "data.seq_len=160")
    # In fp32: in 16 bits, engines that shard weights round vectors, which others keep.
    args += ("--set", "optim.name=adamw", "--set", "precision=fp32")
    sharded = ("--nproc", "2", "--engine", "fsdp", "--set", "feature_cache.mode=off")
    found = []
    for out, more in (("cached", ()), ("sharded", sharded)):
        staged_run.command(*args, *more, "--out", out)
        facts = result(staged_run.home / out)["data"]
        assert (facts["windows"], facts["time_kept"]) == ("up to 3 per segment", 1.0)
        assert facts.get("feature_cache") == (None if more else "kept")
        found.append(losses(staged_run.home / out))
    assert found[0] == pytest.approx(found[1], rel=1e-4)
