"""The report: the table, the promises, and the page with its plots."""

import re
from dataclasses import replace
from pathlib import Path

from gearshift.launcher.compare import report
from gearshift.launcher.compare.candidates import PlannedComparison
from gearshift.launcher.compare.rows import ComparisonRow, PromiseResult
from gearshift.launcher.compare.runner import ComparisonOutcome
from gearshift.launcher.compare.study import Estimate, Study, StudyFigures
from tests.launcher.browser import browser, open_page
from tests.launcher.report.test_page import Outline

FACTS = {"command": "cmd <b>", "machine": "2 cores", "device": "cpu", "at": "2026-01-02"}
COMPARISON = PlannedComparison(
    [], Path("runs/x"), Study({"1": (), "2": ()}), {"stop.after": 6}, facts=FACTS
)
PROMISES = (
    PromiseResult("total_time", {"at_most": 0.34}, 0.2, True),
    PromiseResult("step_time", {"at_least": None, "at_most": 0.5}, 0.75, False),
    PromiseResult("device_peak", {"at_most": 0.6}, None, None, "no GPU"),
    PromiseResult("parameters", {"at_least": 1.0, "at_most": 1.0}, 1.0, True),
    PromiseResult("host_peak_bytes", {"at_most": 2**30}, 2**29, True),
)


def full(mode, **changes):
    known = {"parameters": 1234, "samples": 20739, "step_s": 0.0382, "epoch_s": 61.0}
    known |= {"step_spread_s": (0.038, 0.0388), "extrapolated": {"epoch": True, "total": True}}
    known |= {"total_s": 600.0, "samples_per_s": 200.0, "units_per_s": 26_000.0, "units": "tokens"}
    known |= {"host_peak_bytes": 2**29, "peak_memory_bytes": 2**27}
    known["metric"] = {"metric": "val_loss", "value": 2.5, "step": 6, "direction": "min"}
    known["curve"] = [(1.0, 3.0), (2.0, 2.5)]
    known["losses"] = [(1.0, 3.0), (2.0, 2.5), (3.0, float("nan"))]
    return ComparisonRow("language:tiny", mode, "local", **known | changes)


ROWS = [
    full("default"),
    full("fast", promises=PROMISES, unpromised={"metric": "at size full"}),
    ComparisonRow("language:tiny", "lite", "local", error="it <broke>"),
]
OUTCOME = ComparisonOutcome(ROWS, ["the machine was busy"])


def test_the_table_shows_every_row_and_then_the_promises():
    lines = report.text(COMPARISON, OUTCOME).splitlines()
    assert lines[1] == "on 2 cores; each run stop.after=6, 2 times in turns"
    content = {re.sub(r" +\| ", " | ", line.strip("| ")) for line in lines}
    measured = "20,739 | 1.23k | 38.2 ms ± 0.4 | 1m01s * | 10m00s * | 200 | 26.0k"
    memory = "– | 512.0 MiB | 128.0 MiB"
    assert content >= {
        f"default | local | {measured} | {memory} | val_loss 2.5000 | –",
        "lite local failed: it <broke>",
        "fast local | total_time | at most 0.34 | 0.2 | ✓",
        "fast local | step_time | at most 0.5 | 0.75 | ✗",
        "fast local | device_peak | at most 0.6 | not measured (no GPU)",
        "fast local | metric | – | not promised: at size full",
        "fast local | parameters | at least 1, at most 1 | 1 | ✓",
        "fast local | host_peak_bytes | at most 1.0 GiB | 512.0 MiB | ✓",
        "note: the machine was busy",
    }


def test_a_study_shows_means_paired_differences_and_what_is_missing():
    mean = Estimate(5, 0.61, 0.02, (0.58, 0.64))
    values = {f"fold{n}": 0.6 for n in range(1, 6)}
    base = StudyFigures("val_loss", True, 5, 5, {}, {}, values, mean)
    gap = Estimate(4, -0.05, 0.01, (-0.07, -0.03))
    fewer = {f"fold{n}": 0.6 for n in range(1, 5)}
    row = StudyFigures("val_loss", True, 5, 5, {}, {}, fewer, mean, "default local", gap)
    undecided = PromiseResult("metric", {"at_least": 0.98}, 0.97, None, "not decided")
    outcome = ComparisonOutcome(
        [full("default", study=base), full("fast", study=row, promises=[undecided])], []
    )
    study = replace(COMPARISON, study=Study({}, 5))
    lines = [line.rstrip() for line in report.text(study, outcome).splitlines()]
    assert lines[1].endswith("each run stop.after=6, on 5 folds, in turns")
    rows = [line.split("|") for line in lines if line.startswith(("| default  ", "| fast  "))]
    cells = [row[-3].strip() for row in rows]
    assert cells == ["val_loss 0.6100 ± 0.0200 [0.5800, 0.6400]" + mark for mark in ("", " †")]
    gap_text = "val_loss -0.0500 ± 0.0100 [-0.0700, -0.0300] †"
    assert any(gap_text in line for line in lines)
    assert "† fast local: val_loss of 4 of 5 runs" in lines
    html = report.render(study, outcome).decode()
    assert gap_text in html and Outline(html).open == []


def cells_of(line, separator):
    """The cells of a line of a table, without the escapes of its language."""
    cells = re.split(rf"(?<!\\){separator}", line)
    return [re.sub(r"\\([&%$#_{}|])", r"\1", cell.replace("$\\pm$", "±")).strip() for cell in cells]


def test_tables_for_papers_have_the_cells_of_the_page_escaped():
    mean = Estimate(5, 0.61, 0.02, (0.58, 0.64))
    values = {f"fold{n}": 0.6 for n in range(1, 6)}
    study = StudyFigures("val_loss", True, 5, 5, {}, {}, values, mean)
    rows = [full("default", study=study), full("my|50%_mode", promises=PROMISES)]
    outcome = ComparisonOutcome(rows, [])
    expected = [list(line) for _, lines in report.tables(rows, None) for line in lines]
    assert expected[1][-2] == "val_loss 0.6100 ± 0.0200 [0.5800, 0.6400]"

    lines = report.markdown(COMPARISON, outcome).splitlines()
    found = [cells_of(line, r"\|")[1:-1] for line in lines if line.startswith("| ")]
    assert [cells for cells in found if cells[0] != "---"] == expected

    text = report.latex(COMPARISON, outcome)
    found = [cells_of(line[:-3], "&") for line in text.splitlines() if line.endswith(r" \\")]
    plain = {"–": "--", "✓": "yes", "✗": "no"}
    assert found == [[plain.get(cell, cell) for cell in cells] for cells in expected]
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    assert not re.search(r"(?<!\\)[%#_]", text.split("\n", 1)[1])


def page(outcome=OUTCOME):
    return report.render(COMPARISON, outcome).decode()


def test_the_page_is_one_valid_file_without_network_access():
    html = page()
    assert Outline(html).open == []
    outside = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"https?://|src=|url\(", outside)
    assert "prefers-color-scheme: dark" in html
    assert "cmd &lt;b&gt;" in html and "it &lt;broke&gt;" in html
    assert "not promised: at size full" in html
    html = page(ComparisonOutcome([ROWS[2]], []))  # all runs failed
    assert "<figure" not in html and "<script" not in html


def test_a_browser_draws_the_page_without_an_error(tmp_path):
    (tmp_path / "compare.html").write_text(page())
    with browser() as opened:
        shown = open_page(opened, tmp_path / "compare.html")
        assert "fast local" in shown.legend(0)
        assert shown.errors == [] and len(shown.requests) == 1
