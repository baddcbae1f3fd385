"""Files of shell settings, read by a real bash."""

import os

import pytest

from slurm import site
from slurm.site import SiteError


@pytest.fixture
def site_file(tmp_path):
    """Writes a site file."""

    def write(text: str):
        path = tmp_path / "our site.sh"
        path.write_text(text)
        return path

    return write


def test_what_a_site_sets_is_read_exported_or_not(site_file):
    path = site_file('export SBATCH_ACCOUNT=me\nSBATCH_COMMENT="two\nlines"\necho loaded\n')
    found = site.read(path, {"PATH": os.environ["PATH"], "MINE": "yes"})
    assert found["SBATCH_ACCOUNT"] == "me"
    assert found["SBATCH_COMMENT"] == "two\nlines"
    assert found["MINE"] == "yes"
    assert "loaded" not in found.values()


def test_a_file_can_keep_a_value_of_the_user(site_file):
    path = site_file(': "${SBATCH_PARTITION:=gpu}"\n')
    assert site.read(path, {"SBATCH_PARTITION": "debug"})["SBATCH_PARTITION"] == "debug"
    assert site.read(path, {})["SBATCH_PARTITION"] == "gpu"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo no such project >&2; exit 3", "it exited the shell\nno such project"),
        ("module load nothing-there", "exit code 127 of its last command"),
        ("if true; then", "syntax error"),
    ],
)
def test_a_failing_file_is_an_error_with_its_reason(site_file, text, message):
    with pytest.raises(SiteError) as caught:
        site.read(site_file(text), {"PATH": os.environ["PATH"]})
    assert message in str(caught.value)


def test_an_unreadable_file_is_an_error(tmp_path):
    with pytest.raises(SiteError, match="No such file or directory"):
        site.read(tmp_path / "site.sh", {})


def test_the_file_is_next_to_job_sh_unless_another_is_named(tmp_path):
    assert site.find({}, tmp_path) is None
    (tmp_path / "site.sh").touch()
    assert site.find({}, tmp_path) == tmp_path / "site.sh"
    assert site.find({"GEARSHIFT_SITE": "/else/where.sh"}, tmp_path).name == "where.sh"
