"""`data check` prints findings and writes a page with pictures; invalid data exits with 2."""

from functools import partial

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.commands import data
from launcher.config.provenance import CliArgs
from launcher.report.data_check import Match
from models.language.formats import FORMATS
from tests.launcher.custom_tasks import HEAD, write
from tests.runs.conftest import REQUESTS

DRAWN = """\
import json
from models.base import Picture
from models.common.split import save_split

class Line(CustomTask):
    class Data(BaseModel):
        path: str = "embedded:line"
        shared: bool = False

    def setup(self):
        super().setup()
        val = ["a"] if self.data_settings.shared else ["b"]
        save_split({"train": ["a"], "val": val, "test": ["c"]}, self.context.folder)

    def samples(self, split):
        return [{"x": torch.zeros(3)}] * 4

    def pictures(self):
        return [Picture("wave", f"of {self.data_settings.path}", b"\\x89PNG")]

    def build(self): ...
    def measure(self, model, batch): ...
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory with 80 requests."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text(REQUESTS)
    return tmp_path


@pytest.fixture
def drawn(here):
    return f"{write(here, HEAD + DRAWN)}:Line"


@pytest.fixture
def check(said):
    return partial(said, "data", "check")


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")


def test_the_findings_and_the_command_to_train_are_printed(here, check):
    out = check("mine.jsonl").splitlines()
    assert out[0] == f"mine.jsonl: {FORMATS[1]}"
    facts = {line[2:20].strip(): line[21:] for line in out if line.startswith("  ")}
    assert facts["read by"] == "language:full"
    assert facts["groups"] == "train 64, val 8, test 8"
    assert facts["overlap"] == "none: no group is in two splits"
    assert facts["a batch, input ids"].endswith("int64")
    assert out[-2].startswith("wrote data-check/data.html")
    assert out[-1] == "train on it:  python -m launcher --model language:full --data mine.jsonl"
    assert names(here) == ["data-check", "mine.jsonl"]
    assert "train 64, val 8, test 8" in (here / "data-check" / "data.html").read_text()


def test_json_has_the_findings(here, drawn, check):
    options = ("--json", "--model", "language:small", "--set", "eval.share=0.25")
    found = check("embedded:commands", *options, "--out", "there")
    assert (found["model"], found["format"]) == ("language:small", None)
    assert found["overlapping_groups"] == []
    facts = found["facts"]
    assert (facts["source"], facts["seq_len"]) == ("embedded:commands", 256)
    assert facts["groups"]["val"] == pytest.approx(sum(facts["groups"].values()) / 4, abs=2)
    assert found["files"] == ["there/data.html"]
    found = check("embedded:line", "--model", drawn, "--json")  # of a custom task
    assert found["sample"] == {"x": "[1, 3] float32"}


def test_pictures_are_in_the_page_which_replaces_an_older_one_and_no_other_file(here, drawn, check):
    assert check("mine.jsonl", "--model", drawn).splitlines()[-2:] == [
        "wrote data-check/data.html",
        f"train on it:  python -m launcher --model {drawn} --data mine.jsonl",
    ]
    page = here / "data-check" / "data.html"
    assert names(page.parent) == ["data.html"] and 'alt="of mine.jsonl"' in page.read_text()
    check("mine.jsonl")
    assert 'alt="of mine.jsonl"' not in page.read_text()
    shared = ("mine.jsonl", "--model", drawn, "--set", "data.shared=true", "--json")
    assert check(*shared, code=1)["overlapping_groups"] == ["a"]
    page.write_text("mine")
    assert "was not written by this program" in check("mine.jsonl", code=2)
    assert page.read_text() == "mine"


def test_of_several_families_the_one_that_can_use_the_data_reads_it(here, drawn):
    picky = HEAD + DRAWN.replace("super().setup()", "raise DataError('no waves in it')")
    picky = f"{write(here, picky.replace('Picture', 'DataError, Picture', 1))}:Line"
    found = [Match(picky, "waves"), Match(drawn, "lines")]
    assert data.inspect_matches("mine.jsonl", "typed", found, CliArgs()).format == "lines"
    with pytest.raises(SettingsError) as wrong:
        data.inspect_matches("mine.jsonl", "typed", [found[0], found[0]], CliArgs())
    assert str(wrong.value).splitlines() == [f"error: as {picky}: no waves in it"] * 2
    with pytest.raises(SettingsError) as wrong:
        data.inspect_matches("mine.jsonl", "typed", [found[1], found[1]], CliArgs())
    assert "error: 'mine.jsonl' can be read by several families\n" in str(wrong.value)
    assert f"  allowed       {drawn}: lines\n           {drawn}: lines\n" in str(wrong.value)


def test_unusable_data_is_an_error_and_nothing_is_written(here, check):
    (here / "mine.jsonl").write_text(REQUESTS + '{"prompt": 3}\n')
    for family in ([], ["--model", "language"]):
        err = check("mine.jsonl", *family, code=2)
        start = "error: 1 of 81 rows cannot be used\n  where         mine.jsonl:81: "
        assert err.startswith(start)
        fix = "  fix           correct mine.jsonl:81, or skip them with  --set data.on_bad=skip\n"
        assert fix in err
        assert names(here) == ["mine.jsonl"]
