"""Samples of a run before and after training."""

import base64
import json

from gearshift.launcher.report import run_record
from gearshift.launcher.report.run_record import PICTURE_BYTES

COLUMNS = ("sample", "target", "generated", "score")
PNG = b"\x89PNG and more"


def write(run, when, rows, step=0, pictures=()):
    folder = run / "samples"
    folder.mkdir(exist_ok=True)
    shown = []
    for number, content in enumerate(pictures, start=1):
        name = f"{when}-{number}.png"
        (folder / name).write_bytes(content)
        shown.append({"name": "a", "caption": f"caption {number}", "file": name})
    facts = {"step": step, "columns": COLUMNS, "rows": rows, "pictures": shown}
    (folder / f"{when}.json").write_text(json.dumps(facts))


def read(run, room=PICTURE_BYTES):
    return run_record.samples(run_record.read(run, "run"), room)


def test_samples_are_shown_at_both_times_and_pictures_as_far_as_they_have_room(run):
    write(run, "before", [("a", "yes", "xx", 0.123456), ("b", "no", "zz", 0.5)], 0, [PNG, PNG])
    write(run, "after", [("a", "yes", "yes", 0.9), ("b", "no", "", 0.5)], 120, [PNG, PNG])
    before, after = read(run)
    assert before["when"] == "before training, at step 0"
    assert after["when"] == "after training, at step 120"
    assert after["columns"] == list(COLUMNS)
    assert before["rows"] == [["a", "yes", "xx", "0.1235"], ["b", "no", "zz", "0.5"]]
    assert after["rows"] == [["a", "yes", "yes", "0.9"], ["b", "no", "–", "0.5"]]
    assert [picture["caption"] for picture in after["pictures"]] == ["caption 1", "caption 2"]
    assert base64.b64decode(before["pictures"][1]["png"]) == PNG
    before, after = read(run, room=2 * len(base64.b64encode(PNG)))
    assert (len(before["pictures"]), len(after["pictures"])) == (0, 2)
