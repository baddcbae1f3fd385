"""What --from may name, and what it comes to."""

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.stages import record, selection
from models.catalog import Stage

UPPER = Stage("upper", "it learns", loads="model.start", of=("lower", "middle"))


def made(folder, *files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(path):
    return selection.find(str(path), UPPER)


def refused(path):
    with pytest.raises(SettingsError) as error:
        found(path)
    [fault] = error.value.diagnostics
    return fault


def test_a_file_is_taken_as_it_is(tmp_path):
    made(tmp_path, "any.safetensors")
    assert found(tmp_path / "any.safetensors") == tmp_path / "any.safetensors"


def test_a_checkpoint_or_an_export_is_taken_as_it_is(tmp_path):
    assert found(made(tmp_path, "model.safetensors")) == tmp_path


def test_a_run_is_taken_where_it_has_a_best_checkpoint(tmp_path):
    made(tmp_path, "settings.yaml", "best/model.safetensors", "last/model.safetensors")
    assert found(tmp_path) == tmp_path


def test_of_a_run_without_a_best_checkpoint_the_last_is_taken(tmp_path):
    made(tmp_path, "settings.yaml", "last/model.safetensors")
    assert found(tmp_path) == tmp_path / "last"


def test_of_several_stages_the_latest_that_fits_is_taken(tmp_path):
    record.save(tmp_path, ["lower", "middle", "upper"])
    for folder in ("1-lower", "2-middle", "3-upper"):
        made(tmp_path / folder, "best/model.safetensors")
    assert found(tmp_path) == tmp_path / "2-middle"


def test_stages_of_which_none_fits_are_refused(tmp_path):
    record.save(tmp_path, ["upper"])
    fault = refused(tmp_path)
    told = f"{tmp_path} has no stage lower or middle, whose weights stage upper takes"
    assert (fault.message, fault.allowed) == (told, "it has upper")


def test_a_run_that_saved_no_weights_is_refused_with_how_to_write_them(tmp_path):
    made(tmp_path, "settings.yaml", "last/state.json")
    fault = refused(tmp_path)
    assert fault.message == f"'{tmp_path}' holds no weights for stage upper to begin with"
    assert f"export {tmp_path} --format safetensors" in fault.fix


def test_what_is_not_there_is_refused(tmp_path):
    assert refused(tmp_path / "x").what == f"there is no '{tmp_path / 'x'}'"
