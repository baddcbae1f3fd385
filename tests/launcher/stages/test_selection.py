"""The sources that --from accepts, and the runs they stand for."""

from gearshift.launcher.stages.pipeline import weights_in
from gearshift.models.catalog import Stage
from tests.launcher.stages.conftest import saved_stages

UPPER = Stage("upper", "train the upper half", loads="model.start", of=("lower", "middle"))


def test_the_latest_matching_stage_is_used(tmp_path):
    saved_stages(tmp_path, "lower", "middle", "upper")
    (tmp_path / "2-middle").mkdir()
    assert weights_in(str(tmp_path), UPPER) == tmp_path / "2-middle"
    (tmp_path / "any.safetensors").touch()
    for path in (tmp_path / "2-middle", tmp_path / "any.safetensors"):
        assert weights_in(str(path), UPPER) == path
