"""The resume point of a run, as errors for the user."""

import pytest
import torch

from engines.environment import RankInfo
from engines.world import ProcessWorld
from launcher.base.diagnostics import SettingsError
from launcher.run_folder.restore import load_resume_point
from launcher.run_folder.run_plan import ResumeRequest
from tests.launcher.given import resolved
from tests.launcher.runs import trained
from tests.privileges import reachable_folder, unreadable


def test_a_shard_without_permission_is_named_and_left_alone():
    alone = ProcessWorld(RankInfo(), torch.device("cpu"), 10.0)
    with reachable_folder() as folder:
        run = trained(folder / "run", resolved(), 10, 20)
        shard = run / "checkpoints" / "step-00000020" / "rank-00000.safetensors"
        before = sorted(folder.rglob("*"))
        with unreadable(shard), pytest.raises(SettingsError) as error:
            load_resume_point(ResumeRequest(run), {"experience": 0, "data": {}}, alone, run)
        assert str(error.value).splitlines() == [
            f"error: {shard} cannot be read: Permission denied",
            f"  where         --resume {run}",
            "  allowed       files that this user may read; nothing was changed",
            f"  fix           chmod -R a+rX {shard}  as its owner",
        ]
        assert sorted(folder.rglob("*")) == before
