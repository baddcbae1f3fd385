"""The sources that --from accepts, and the weights they give."""

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.stages import record, selection
from models.catalog import Stage

UPPER = Stage("upper", "train the upper half", loads="model.start", of=("lower", "middle"))


def write_files(folder, *files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(path):
    return selection.find(str(path), UPPER)


def refused(path):
    with pytest.raises(SettingsError) as error:
        found(path)
    [diagnostic] = error.value.diagnostics
    return diagnostic


def test_a_file_is_used_as_it_is(tmp_path):
    write_files(tmp_path, "any.safetensors")
    assert found(tmp_path / "any.safetensors") == tmp_path / "any.safetensors"


def test_a_checkpoint_or_an_export_is_used_as_it_is(tmp_path):
    assert found(write_files(tmp_path, "model.safetensors")) == tmp_path


def test_a_run_with_a_best_checkpoint_is_used(tmp_path):
    write_files(tmp_path, "settings.yaml", "best/model.safetensors", "last/model.safetensors")
    assert found(tmp_path) == tmp_path


def test_without_a_best_checkpoint_the_last_one_is_used(tmp_path):
    write_files(tmp_path, "settings.yaml", "last/model.safetensors")
    assert found(tmp_path) == tmp_path / "last"


def test_the_latest_matching_stage_is_used(tmp_path):
    record.save(tmp_path, ["lower", "middle", "upper"])
    for folder in ("1-lower", "2-middle", "3-upper"):
        write_files(tmp_path / folder, "best/model.safetensors")
    assert found(tmp_path) == tmp_path / "2-middle"


def test_stages_without_a_match_are_refused(tmp_path):
    record.save(tmp_path, ["upper"])
    diagnostic = refused(tmp_path)
    content = f"{tmp_path} has no stage lower or middle, whose weights stage upper takes"
    assert (diagnostic.message, diagnostic.allowed) == (content, "it has upper")


def test_any_checkpoint_of_a_run_is_used(tmp_path):
    checkpoint = tmp_path / "checkpoints" / "step-00000002"
    write_files(checkpoint, "manifest.json", "state.json", "rank-00000.safetensors")
    assert found(checkpoint) == found(tmp_path) == checkpoint
    newer = write_files(checkpoint.with_name("step-00000010"), "manifest.json")
    assert found(tmp_path) == newer
    write_files(tmp_path / "last", "manifest.json")
    assert found(tmp_path) == tmp_path / "last"
    write_files(tmp_path / "best", "manifest.json")
    assert found(tmp_path) == tmp_path


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    write_files(tmp_path, "settings.yaml", "last/state.json")
    diagnostic = refused(tmp_path)
    assert diagnostic.message == f"'{tmp_path}' holds no weights for stage upper"
    assert diagnostic.fix is None


def test_a_missing_path_is_refused(tmp_path):
    assert refused(tmp_path / "x").message == f"'{tmp_path / 'x'}' does not exist"
