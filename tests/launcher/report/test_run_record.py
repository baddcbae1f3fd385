"""Samples of a run as cards: what stayed, and what training changed."""

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


def test_what_training_changed_is_shown_at_both_times(run):
    write(run, "before", [("a", "yes", "xx", 0.123456), ("b", "no", "zz", 0.5)], 0, [PNG, PNG])
    write(run, "after", [("a", "yes", "yes", 0.9), ("b", "no", "zz", 0.5)], 120, [PNG, PNG])
    found = read(run)
    assert found["when"] == "before training, at step 0, and after training, at step 120"
    first, second = found["cards"]
    assert (first[0], second[0]) == ("a", "b")
    assert first[1] == [
        ("target", "yes"),
        ("generated, before training", "xx"),
        ("generated, after training", "yes"),
        ("score, before training", "0.1235"),
        ("score, after training", "0.9"),
    ]
    assert second[1] == [("target", "no"), ("generated", "zz"), ("score", "0.5")]
    _, pictures = found["pictures"]
    assert [picture["when"] for picture in pictures] == ["before training", "after training"]
    assert base64.b64decode(pictures[1]["png"]) == PNG
