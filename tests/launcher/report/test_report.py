"""The report of a run as a reader sees it: in headless Chromium."""

import html
import io
import json
import re
import shutil

import pytest
from PIL import Image

from gearshift.launcher.report import earlier_page, report
from tests.launcher.browser import browser, open_page

EVALUATION = {
    **{"time": "2026-01-02T03:04:05Z", "step": 4, "split": "test", "weights": "ema"},
    **{"engine": "ddp", "world_size": 2, "data": None, "samples": 12, "seconds": 0.5},
    "metrics": {"val_loss": 1.5, "token_accuracy": "NaN"},
}
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>'\"&$$x$$"


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


def change(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def add_samples(run, text, count=1, png=None):
    """Samples of a run before and after training, with a picture each."""
    file = io.BytesIO()
    Image.new("RGB", (720, 240), "white").save(file, "PNG")
    (run / "samples").mkdir()
    for when, generated in (("before", ""), ("after", text)):
        pictures = []
        for number in range(1, count + 1):
            name = f"{when}-{number}.png"
            (run / "samples" / name).write_bytes(png or file.getvalue())
            pictures.append({"name": "one", "caption": text, "file": name})
        rows = [(text, text, generated, 0.5)] * count
        columns = ("name", text, "generated", "score")
        facts = {"step": 6, "columns": columns, "rows": rows, "pictures": pictures}
        (run / "samples" / f"{when}.json").write_text(json.dumps(facts))


def append(path, *lines):
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def written(*runs):
    """The page of runs, written again, in the folder of the last."""
    report.write(list(runs), runs[-1] / "report.html")
    return (runs[-1] / "report.html").read_text()


def shown(page, start):
    """The text of a page from `start` on, a line for each element."""
    body = re.sub(r"(?s)<(script|style).*?</\1>", "", page).partition("<body")[2]
    texts = (html.unescape(text).strip() for text in re.split(r"<[^>]+>", body))
    lines = [text for text in texts if text]
    return lines[lines.index(start) :]


def names_of_lines(page):
    """The names of the lines of each plot."""
    found = re.search(r'<script type="application/json" id="plots">(.*?)</script>', page)
    return [[line["name"] for line in plot["lines"]] for plot in json.loads(found[1])["plots"]]


def test_the_plots_follow_the_mouse_and_a_zoom_and_the_page_fits_a_phone(run, chromium):
    add_samples(run, "a longer sentence that was generated " * 5, 2)
    append(run / "evaluations.jsonl", EVALUATION)
    written(run)
    opened = open_page(chromium, run / "report.html")
    whole, last = opened.ticks(), opened.legend(0)
    figure = opened.page.locator("figure[data-plot='0']")
    figure.scroll_into_view_if_needed()
    box = figure.bounding_box()
    middle, level = box["x"] + 0.4 * box["width"], box["y"] + 0.6 * box["height"]
    opened.page.mouse.move(middle, level)
    opened.page.wait_for_function(f"() => !document.body.innerText.includes({json.dumps(last)})")
    assert "loss" in opened.legend(0)

    opened.page.mouse.down()
    opened.page.mouse.move(middle + 100, level, steps=4)
    opened.page.mouse.up()
    low, high = opened.other_ticks(whole)
    assert whole[0] < low < high < whole[1]
    opened.page.click("button[data-reset]")
    assert opened.other_ticks((low, high)) == whole
    opened.page.emulate_media(color_scheme="dark")
    opened.page.set_viewport_size({"width": 390, "height": 800})
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    assert opened.errors == [] and opened.requests == [(run / "report.html").as_uri()]
    opened.page.close()


def test_hostile_text_is_shown_as_text(run, chromium):
    hostile = run.with_name("<b onclick=alert(1)>'run")
    run.rename(hostile)
    setting = {"value": HOSTILE, "origin": HOSTILE, "layer": "command line", "replaced": []}
    change(hostile / "origins.json", **{HOSTILE: setting})
    best = {"metric": HOSTILE, "value": 1.5, "step": 2}
    change(hostile / "result.json", reason=HOSTILE, best=best, data={HOSTILE: "\ud800"})
    facts = {"when": "after", "text": f"{HOSTILE} \udcff"}
    event = {"time": HOSTILE, "step": 6, "facts": facts}
    kinds = ("preview", "warning", HOSTILE)
    append(hostile / "events.jsonl", *(event | {"kind": kind} for kind in kinds))
    metrics = {HOSTILE: 0.5, "val_loss": "NaN"}
    evaluated = {"kind": "eval", "step": 6, "split": "val", "metrics": metrics}
    append(hostile / "metrics.jsonl", evaluated)
    add_samples(hostile, HOSTILE)
    line = EVALUATION | {"data": HOSTILE, "split": HOSTILE, "metrics": {HOSTILE: 1}}
    append(hostile / "evaluations.jsonl", line, {"step": 3}, [])
    report.write([hostile], hostile / "report.html")

    opened = open_page(chromium, hostile / "report.html")
    text = opened.page.inner_text("body")
    assert text.count(HOSTILE) > 12
    assert HOSTILE in opened.page.locator(".samples").inner_text()
    assert opened.page.locator(".evaluations").inner_text().count(HOSTILE) == 3
    assert "\\udcff" in opened.page.content() and hostile.name in text
    assert opened.page.title() == hostile.name
    assert opened.page.locator("b[onclick], img:not([src^=data])").count() == 0
    sizes = opened.page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert sizes == [720, 720]
    assert opened.errors == [] and len(opened.requests) == 1
    opened.page.close()


def test_a_staged_run_has_one_report_with_the_outcome_of_each_stage(run):
    whole = run.with_name("whole")
    for number, name in ((1, "first"), (2, "second"), (3, "third")):
        shutil.copytree(run, whole / f"{number}-{name}", symlinks=True)
    for name in ("result.json", "metrics.jsonl", "events.jsonl"):
        (whole / "3-third" / name).unlink()
    stages = [{"name": name, "folder": name} for name in ("1-first", "2-second", "3-third")]
    (whole / "stages.json").write_text(json.dumps({"stages": stages}))
    result = json.loads((run / "result.json").read_text())
    (whole / "result.json").write_text(json.dumps(result | {"status": "stopped", "steps": 12}))
    report.write_at_end(whole)
    earlier_page.refresh(whole / "1-first")
    page = (whole / "report.html").read_text()
    assert "<title>whole</title>" in page
    head = page.partition("<section")[0]
    assert "stopped" in head and "12 steps" in head
    lines = shown(page, "peak memory")
    rows = [lines.index(f"whole/{stage['name']}") for stage in stages]
    assert [lines[row + 2] for row in rows] == ["completed", "completed", "not started"]
    assert any({"whole/1-first", "whole/2-second"} <= {*names} for names in names_of_lines(page))


def test_a_report_that_fails_is_a_warning_printed_and_as_an_event(run, capsys):
    (run / "metrics.jsonl").write_text("no JSON\n")
    report.write_at_end(run)
    printed = capsys.readouterr().err
    assert printed.startswith("warning: report.html") and f"report {run}" in printed
    last = json.loads((run / "events.jsonl").read_text().splitlines()[-1])
    assert last["kind"] == "warning" and last["facts"]["subject"] == "report"
    assert "metrics.jsonl:1" in last["facts"]["text"]
