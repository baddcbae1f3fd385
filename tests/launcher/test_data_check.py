"""`data check` prints findings and writes a page with pictures; invalid data exits with 2."""

from functools import partial

import pytest

from gearshift.launcher.commands import data
from gearshift.launcher.config.provenance import CliArgs
from gearshift.models.language.formats import FORMATS
from tests.launcher.custom_tasks import HEAD, write
from tests.launcher.given import errors_of
from tests.runs.conftest import REQUESTS

DRAWN = """\
import json
from gearshift.models.base import Picture
from gearshift.models.common.split import save_split
from tests.launcher.given import errors_of

class Line(CustomTask):
    class Data(BaseModel):
        path: str = "embedded:line"
        shared: bool = False

    def setup(self):
        super().setup()
        val = ["a"] if self.data_settings.shared else ["b"]
        save_split({"train": ["a"], "val": val, "test": ["c"]}, self.context)

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
    assert (facts["read by"], facts["groups"]) == ("language:full", "train 64, val 8, test 8")
    assert facts["a batch, input ids"].endswith("int64")
    assert out[-1] == "train on it:  python -m launcher --model language --data mine.jsonl"
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
    assert check("mine.jsonl", "--model", drawn).endswith(f" --model {drawn} --data mine.jsonl\n")
    page = here / "data-check" / "data.html"
    assert names(page.parent) == ["data.html"] and 'alt="of mine.jsonl"' in page.read_text()
    check("mine.jsonl")
    assert 'alt="of mine.jsonl"' not in page.read_text()
    shared = ("mine.jsonl", "--model", drawn, "--set", "data.shared=true", "--json")
    assert check(*shared, code=1)["overlapping_groups"] == ["a"]
    page.write_text("mine")
    check("mine.jsonl", code=2)  # it is of another program
    assert page.read_text() == "mine"


def test_of_several_families_the_one_that_can_use_the_data_reads_it(here, drawn):
    picky = HEAD + DRAWN.replace("super().setup()", "raise DataError('no waves in it')")
    picky = f"{write(here, picky.replace('Picture', 'DataError, Picture', 1))}:Line"
    found = [(picky, "waves"), (drawn, "lines")]
    assert data.inspect_matches("mine.jsonl", "typed", found, CliArgs()).format == "lines"
    none, several = (
        errors_of(data.inspect_matches, "mine.jsonl", "typed", [match] * 2, CliArgs())
        for match in found
    )
    [error] = several
    assert len(none) == 2
    assert error.allowed.count(f"{drawn}: lines") == 2


def test_unusable_data_is_an_error_and_nothing_is_written(here, check):
    (here / "mine.jsonl").write_text(REQUESTS + '{"prompt": 3}\n')
    for family in ([], ["--model", "language"]):
        [error] = check("mine.jsonl", *family, "--json", code=2)["diagnostics"]
        assert error["where"].startswith("mine.jsonl:81: ") and "data.on_bad=skip" in error["fix"]
        assert names(here) == ["mine.jsonl"]


def test_a_table_that_no_family_knows_asks_which_and_a_fix_runs(here, check):
    (here / "faq.csv").write_text("one,two\na,b\n")
    language, abr = check("faq.csv", "--json", code=2)["diagnostics"]
    for error, family in ((language, "language"), (abr, "abr")):
        assert f"--model {family}" in error["message"] and "data.columns=" in error["hint"]
    rows = "".join(f"what is {n}?,it is {n}\n" for n in range(40))
    (here / "faq.csv").write_text(f"Ask,Reply\n{rows}")
    [error] = check("faq.csv", "--json", code=2)["diagnostics"]
    assert error["where"] == "faq.csv:1" and names(here) == ["faq.csv", "mine.jsonl"]
    found = check(*error["fix"][error["fix"].index("faq.csv") :])
    assert (found["model"], found["format"]) == ("language:full", FORMATS[0])
    assert found["facts"]["columns"] == {"Ask": "request", "Reply": "answer"}
