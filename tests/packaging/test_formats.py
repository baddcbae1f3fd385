"""The built-in data need no package of an extra; a reader without its package names the extra."""

import os
import re
import sys
from importlib.util import find_spec

import pytest
from PIL import Image

from gearshift.launcher.__main__ import main
from gearshift.models.catalog import FAMILIES
from gearshift.models.common.data_files import check_reader
from gearshift.models.common.data_reports import install_command
from tests.launcher.given import ROOT, python
from tests.models.eeg_text.readers.writers import (
    NAMES,
    waves,
    write_edf,
    write_matlab5,
    write_matlab73,
)
from tests.models.errors import error_of
from tests.models.event_seg.writers import random_events, write_masks, write_mvsec, write_raw

HIDDEN = (
    "h5py",
    "mne",
    "openpyxl",
    "pyarrow",
    "tiktoken",
    "cv2",
    "tensorboard",
    "mlflow",
    "onnxruntime",
    "bitsandbytes",
)
"""The modules of all extras but those of development."""
HIDE = f"import sys; sys.modules.update(dict.fromkeys({HIDDEN}))"


def hidden(monkeypatch, *names):
    """Modules that are not installed, as `find_spec` and `import` see it."""
    for name in names:
        assert find_spec(name) is not None
        monkeypatch.setitem(sys.modules, name, None)


def workbook(path):
    from openpyxl import Workbook

    Workbook().save(path)
    return path


def parquet(path):
    from pyarrow import Table
    from pyarrow import parquet as files

    files.write_table(Table.from_pylist([{"prompt": "a", "response": "b"}] * 20), path)
    return path


def edf(path):
    return write_edf(path, NAMES, 4, make=waves)


def masked(path):
    write_masks(path, [1000, 2000])
    return write_raw(path, random_events(50, 4000))


FILES = {
    "mvsec": ("h5py", "event_seg", "a_data.hdf5", write_mvsec),
    "masks": ("h5py", "event_seg", "a.raw", masked),
    "zuco": ("h5py", "eeg_text", "resultsYAC_NR.mat", write_matlab73),
    "abr": ("mne", "abr", "a.edf", edf),
    "eeg": ("mne", "eeg_text", "a.edf", edf),
    "sheet": ("openpyxl", "abr", "a.xlsx", workbook),
    "parquet": ("pyarrow", "language", "a.parquet", parquet),
}


@pytest.mark.parametrize(("package", "family", "name", "write"), FILES.values(), ids=FILES)
def test_a_file_whose_package_is_missing_ends_with_the_line_to_type(
    package, family, name, write, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        write(folder / name)
    with (tmp_path / "two" / name).open("ab") as file:
        file.write(b"\0")  # no copy, which would be left out
    before = sorted(tmp_path.rglob("*"))
    hidden(monkeypatch, package)
    skip = ("--set", "data.on_bad=skip")  # what the machine lacks is no fault of a file
    for words in (
        ["data", "check", f"one/{name}", "--model", family],
        ["data", "check", ".", "--model", family],
        ["data", "check", ".", "--model", family, *skip],
        ["--model", family, "--data", ".", *skip],
    ):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert re.match(rf"error: reading '[\w.]+' requires the package {package}\b", err), err
        assert f"fix           {install_command('data')}" in err, err
    assert sorted(tmp_path.rglob("*")) == before


def test_the_readers_of_installed_packages_read(tmp_path, monkeypatch):
    check_reader("h5py", tmp_path / "a.h5")
    hidden(monkeypatch, "h5py")
    error = error_of(check_reader, "h5py", tmp_path / "a.h5")
    assert (error.where, error.fix) == (str(tmp_path / "a.h5"), install_command("data"))


def responses(path):
    heads = ["patient_id", "age", "intensity", "rate", "fmp", *map(str, range(1, 201))]
    cells = ["7", "40", "80", "11.1", "3.2", *(f"{n / 1000}" for n in range(200))]
    path.write_text(f"{','.join(heads)}\n{','.join(cells)}\n")


INPUTS = {
    "language": ("a.txt", lambda path: path.write_text("def")),
    "abr": ("a.csv", responses),
    "doc_translation": ("a.png", lambda path: Image.new("L", (60, 40), 255).save(path)),
    "event_seg": ("a.raw", lambda path: write_raw(path, random_events(500, 90_000))),
    "eeg_text": ("resultsYAC_NR.mat", write_matlab5),
}
"""What `predict` reads without an extra, and what writes it."""
LIFE = """
from gearshift.launcher.__main__ import main
for words in (
    "run --model {family}:tiny --out run --max-steps 2 --set data.fraction=0.1 --set eval.share=0.05",
    "evaluate run", "predict run --input {name}", "report run",
):
    assert main(words.split()) == 0, words
"""


def use(folder, family):
    """Train, evaluate, predict and report a tiny model on its built-in data, without the extras."""
    (folder / "sitecustomize.py").write_text(HIDE)  # for its processes, too
    path = os.pathsep.join((str(folder), str(ROOT)))
    name, write = INPUTS[family]
    write(folder / name)
    done = python(
        "-c", LIFE.format(family=family, name=name), folder=folder, env={"PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "run" / "report.html").stat().st_size


def test_language_needs_no_extra_from_training_to_the_report(tmp_path):
    use(tmp_path, "language")


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "language"])
def test_a_family_needs_no_extra_from_training_to_the_report(family, tmp_path):
    use(tmp_path, family)


def test_all_families_are_imported_without_the_extras(tmp_path):
    names = ", ".join(
        f"gearshift.models.{family}.{part}" for family in FAMILIES for part in ("task", "formats")
    )
    done = python("-c", f"{HIDE}; import {names}", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_extra_of_formats_is_what_the_readers_need():
    text = (ROOT / "pyproject.toml").read_text()
    named = re.search(r"^data = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1]
    packages = re.findall(r'^    "([\w-]+)', named, re.MULTILINE)
    readers = {package for package, *_ in FILES.values()}
    assert sorted(packages) == sorted({*readers, "tiktoken"})  # which encodes what they read
