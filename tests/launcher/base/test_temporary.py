"""A folder of a process that was killed is removed by a later start, and no other one."""

import os
import subprocess
import sys
from contextlib import contextmanager

from gearshift.launcher.base.temporary import remove_abandoned, temporary_folder
from tests.launcher.given import SOURCE

OWNER = """
import sys
from pathlib import Path
from gearshift.launcher.base.temporary import temporary_folder
with temporary_folder(sys.argv[1], Path(sys.argv[2])) as folder:
    (folder / "half").write_text("written")
    print(folder, flush=True)
    sys.stdin.read()
"""


@contextmanager
def owner(prefix, parent):
    """A process with a temporary folder in `parent`: the process, and the name of the folder."""
    command = [sys.executable, "-c", OWNER, prefix, str(parent)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        text=True,
    ) as process:
        yield process, process.stdout.readline().strip()
        process.kill()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_of_a_killed_process_goes_and_that_of_a_running_one_stays(tmp_path):
    with (
        owner("gearshift-", tmp_path) as (first, left),
        owner(".a.gearshift-", tmp_path) as (_, held),
    ):
        first.kill()
        first.wait()
        assert len(names(tmp_path)) == 2
        with temporary_folder("gearshift-b-", tmp_path) as own:
            assert names(tmp_path) == sorted(os.path.basename(p) for p in (held, own))
        assert not os.path.exists(left) and os.path.exists(f"{held}/half")
        assert names(tmp_path) == [os.path.basename(held)]


def test_folders_of_others_and_what_a_link_leads_to_stay(tmp_path):
    (tmp_path / "gearshift-examples").mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / ".gearshift-owner").touch()
    (tmp_path / "gearshift-link").symlink_to(target)
    linked = tmp_path / "gearshift-x"
    linked.mkdir()
    (linked / ".gearshift-owner").symlink_to(target / ".gearshift-owner")
    (tmp_path / "gearshift-file").touch()
    before = names(tmp_path)
    remove_abandoned(tmp_path)
    assert names(tmp_path) == before and names(target) == [".gearshift-owner"]
