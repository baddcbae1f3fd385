"""Runs of many lines, and many runs: read as a stream, shown in one table, no point lost."""

import json
import re
import shutil
import tracemalloc

import pytest

from launcher.report import report, run_record
from launcher.report.plots import BUCKETS, ThinnedLine
from launcher.report.watched_run import WatchedRun
from launcher.run_folder.reader import FollowedLines
from tests.launcher.browser import browser, open_page
from tests.launcher.given import resolved
from tests.launcher.runs import begun, ended
from tests.training.facts import logged, train_plan
from training.callbacks.base import Outcome
from training.logging.events import EventsWriter
from training.logging.metrics import MetricsWriter
from training.storage import Storage

LINES, EVERY = 30_000, 7
"""Steps of a long run, and between two of its evaluations."""


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """The folder of a completed run with a line for each of many steps."""
    folder = tmp_path_factory.mktemp("runs") / "long"
    begun(folder, resolved())
    storage = Storage(folder)
    EventsWriter(storage).start(train_plan(total_steps=LINES))
    MetricsWriter(storage).logged(logged(1))
    line = json.loads((folder / "metrics.jsonl").read_text())
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, LINES + 1):
            loss = 4.0 if step <= LINES // 2 else 2.0
            loss = 77.0 if step == 21_337 else "NaN" if step == 12_345 else loss
            facts = {"step": step, "loss": loss, "device_memory_bytes": None, "x": "-" * 300}
            file.write(json.dumps(line | facts) + "\n")
            if step % EVERY == 0:
                metrics = {"val_loss": 1.0}
                content = {"kind": "eval", "step": step, "split": "val", "metrics": metrics}
                file.write(json.dumps(content) + "\n")
    EventsWriter(storage).end(Outcome("completed", "all", 0, LINES, 2.0, 9.0, None, None))
    ended(folder, "completed", LINES)
    return folder


def test_a_watched_run_parses_a_part_of_many_lines_and_each_of_the_newest(long_run, tmp_path):
    folder = shutil.copytree(long_run, tmp_path / "run")
    thinned = FollowedLines(folder)
    lines = [line for line in thinned.new() if line["kind"] == "train"]
    assert len(lines) < LINES / 1.5
    assert [line["step"] for line in lines[-500:]] == list(range(LINES - 499, LINES + 1))
    append(folder / "metrics.jsonl", lines[-1] | {"step": LINES + 1})
    assert [line["step"] for line in thinned.new()] == [LINES + 1]


def test_a_watched_run_shows_its_whole_curve_and_its_last_step(long_run):
    view = WatchedRun(long_run).snapshot().view
    assert (view.position.step, view.position.last.loss) == (LINES, 2.0)
    third = len(view.losses) // 3
    assert view.losses[:third] == pytest.approx([4.0] * third)
    assert view.losses[-5:] == pytest.approx([2.0] * 5)


@pytest.mark.slow
@pytest.mark.parametrize("read", [run_record.read, lambda folder: WatchedRun(folder).snapshot()])
def test_the_memory_of_a_reader_does_not_grow_with_the_file(long_run, read):
    tracemalloc.start()
    read(long_run)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 25_000_000  # all points of this run take 40 MB


def test_a_report_keeps_the_ends_the_spike_and_the_gap_of_many_lines(long_run):
    record = run_record.read(long_run)
    loss = record.train["loss"]
    assert len(loss) <= 12 * BUCKETS + 2
    assert (loss[0], loss[-1]) == ((1, 4.0), (LINES, 2.0))
    assert {(21_337, 77.0), (12_345, None)} <= set(loss)
    assert [x for x, _ in loss] == sorted({x for x, _ in loss})
    assert "device_memory_bytes" not in record.train and "x" not in record.train
    assert record.evaluations["val_loss"][-1][0] == LINES // EVERY * EVERY
    assert record.steps == LINES


@pytest.mark.parametrize("count", [1, 4 * BUCKETS, 4 * BUCKETS + 1, 50_001])
def test_thinning_while_reading_loses_no_extreme_of_any_part(count):
    points = [(x, float((x * 7919) % 10_007)) for x in range(count)]
    line = ThinnedLine()
    for point in points:
        line.add(point)
    found = line.points
    assert set(found) <= set(points) and (found[0], found[-1]) == (points[0], points[-1])
    if count <= 4 * BUCKETS:
        assert found == points
    for start in range(0, count, 1024):
        part = [y for x, y in points[start : start + 1024]]
        kept = [y for x, y in found if start <= x < start + 1024]
        assert (min(kept), max(kept)) == (min(part), max(part))


def test_a_point_at_the_same_place_replaces_the_one_before():
    line = ThinnedLine()
    for point in ((1, 5.0), (1, 4.0), (2, 3.0), (2, None), (3, 1.0)):
        line.add(point)
    assert line.points == [(1, 4.0), (2, None), (3, 1.0)]


def append(path, *lines):
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Five runs of different learning rates, each with one evaluation; every third has advice."""
    home = tmp_path_factory.mktemp("sweep")
    folders = [home / f"lr-{number}" for number in range(5)]
    for number, folder in enumerate(folders):
        begun(folder, resolved(f"optim.lr={(number + 1) / 1000}"))
        EventsWriter(Storage(folder)).start(train_plan(total_steps=10))
        MetricsWriter(Storage(folder)).logged(logged(10))
        metrics = {"split": "val", "metrics": {"val_loss": 1.0 + number}}
        append(folder / "metrics.jsonl", {"kind": "eval", "step": 10, **metrics})
        if number % 3 == 0:
            facts = {"fault": "rose", "seen": "it <rose>", "cause": "lr"}
            facts["fix"] = f"--set optim.lr={number}"
            event = {"time": "", "kind": "advice", "step": 5, "facts": facts}
            append(folder / "events.jsonl", event)
        ended(folder, "completed", 10)
    return folders


def rows_of(page, part):
    section = page.partition(part)[2].partition("</section>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def test_the_findings_of_many_runs_are_one_table(runs, tmp_path):
    report.write(runs, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("What to do") == 1
    head, *rows = rows_of(page, '<section class="findings">')
    assert head == ["run", "seen", "likely cause", "next"]
    assert [row[0] for row in rows] == ["lr-0", "lr-3"]
    assert rows[1] == ["lr-3", "it &lt;rose&gt;", "lr", "--set optim.lr=3"]
    head, *rows = rows_of(page, '<section id="differing">')
    assert head == ["run", "optim.lr"]
    assert [row[1] for row in rows] == ["1e-3", "0.002", "0.003", "0.004", "0.005"]
    assert page.count('<details class="whole-run">') == 5  # closed


def test_runs_of_one_name_are_told_apart_by_their_folders(runs, tmp_path):
    folders = [tmp_path / "a" / "x" / "run", tmp_path / "b" / "x" / "run", tmp_path / "c" / "other"]
    for folder, source in zip(folders, runs, strict=False):
        shutil.copytree(source, folder)
    written = report.write(folders, tmp_path / "report.html")
    assert [run.name for run in written] == ["a/x/run", "b/x/run", "other"]


def test_a_curve_of_one_evaluation_has_a_marker(runs, tmp_path):
    report.write(runs[:2], tmp_path / "report.html")
    with browser() as opened:
        shown = open_page(opened, tmp_path / "report.html")
        marked = shown.page.evaluate(
            "() => Bokeh.documents[0].roots()[0].renderers"
            ".filter((one) => one.glyph.type === 'Scatter')"
            ".map((one) => [...one.data_source.data.x, ...one.data_source.data.y])"
        )
        assert [10, 1.0] in marked and [10, 2.0] in marked
        assert shown.errors == []
