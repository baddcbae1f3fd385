"""The sources that --from accepts, and the weights they give."""

import pytest

from gearshift.launcher.stages.pipeline import weights_in
from gearshift.models.catalog import Stage
from tests.launcher.stages.conftest import saved_stages

UPPER = Stage("upper", "train the upper half", loads="model.start", of=("lower", "middle"))
STEP = "checkpoints/step-00000002"


def found(path):
    return weights_in(str(path), UPPER)


def write_files(folder, *files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("files", "given", "expected"),
    [
        (["any.safetensors"], "any.safetensors", "any.safetensors"),
        (["settings.yaml", "best/model.safetensors", "last/model.safetensors"], "", ""),
        (["settings.yaml", "last/model.safetensors"], "", "last"),
        ([f"{STEP}/manifest.json", f"{STEP}/state.json"], STEP, STEP),
        ([f"{STEP}/manifest.json", f"{STEP[:-1]}9/manifest.json"], "", f"{STEP[:-1]}9"),
        ([f"{STEP}/manifest.json", "last/manifest.json", "best/manifest.json"], "", ""),
    ],
)
def test_the_best_checkpoint_is_used_else_the_last_else_the_newest(
    tmp_path, files, given, expected
):
    write_files(tmp_path, *files)
    assert found(tmp_path / given) == tmp_path / expected


def test_the_latest_matching_stage_is_used(tmp_path):
    stages = ["lower", "middle", "upper"]
    saved_stages(tmp_path, *stages)
    write_files(
        tmp_path, *(f"{n}-{name}/best/model.safetensors" for n, name in enumerate(stages, 1))
    )
    assert found(tmp_path) == tmp_path / "2-middle"
