"""`list`: the catalogs, with a description and the availability of each entry."""

import json
import os
import sys

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.config import presets
from tests.launcher.given import resolved
from tests.launcher.runs import begun

PARAMETERS = {
    "event_seg": {"tiny": 17_218, "lite": 260_866, "lite-1M": 1_080_258, "full": 4_310_914},
    "language": {
        "tiny": 124_224,
        "small": 887_936,
        "lite": 4_889_856,
        "full": 25_838_080,
        "124M": 123_587_328,
        "350M": 359_842_816,
        "1.3B": 1_317_373_952,
    },
    "abr": {"tiny": 153_961, "lite": 820_449, "full": 46_720_259},
    "doc_translation": {"tiny": 338_877, "full": 208_941_977},
    "eeg_text": {"tiny": 316_248, "lite": 145_653_184, "full": 352_138_112},
}
"""By family and size, from their specification; eeg_text with bridge and decoder."""


def test_every_size_is_listed_with_its_exact_parameters(said):
    found = {
        family["name"]: {size["name"]: size["parameters"] for size in family["sizes"]}
        for family in said("list", "models", "--json")
    }
    assert found == PARAMETERS
    text = said("list", "models")
    for family, sizes in PARAMETERS.items():
        for size, count in sizes.items():
            assert f"{family}:{size} " in text
            assert f"{count:,} parameters" in text


def test_every_mode_and_engine_is_listed_and_all_without_a_word(said):
    rows = {row["name"]: row for row in said("list", "modes", "--json")}
    assert set(rows) == set(presets.modes())
    assert rows["lite"]["sentence"] == presets.mode("lite").sentence
    assert rows["lite"]["promise"]["peak_memory"]["at_most"] == 0.25
    assert presets.mode("lite").sentence in said("list", "modes")
    rows = {row["name"]: row for row in said("list", "engines", "--json")}
    assert list(rows) == [*ENGINES, "auto"]
    assert rows["zero2"]["needs"] == ["deepspeed"]
    assert (rows["local"]["runs_here"], rows["local"]["why_not"]) == (True, None)
    kinds = ("models", "modes", "engines", "recipes")
    assert said("list") == "\n".join(f"{kind}\n{said('list', kind)}" for kind in kinds)
    found = said("list", "--json")
    assert {kind: said("list", kind, "--json") for kind in found} == found
    assert tuple(found) == kinds
    assert [row["name"] for row in found["recipes"]] == list(presets.recipes())


def test_an_engine_with_a_missing_package_is_marked(said, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "fairscale", raising=False)
    rows = {row["name"]: row for row in said("list", "engines", "--json")}
    assert rows["oss"]["runs_here"] is False and "fairscale" in rows["oss"]["why_not"]
    assert "cannot run here: " in said("list", "engines")


def ended(folder, hour, value=None, metric="val_loss", direction="min"):
    """A run that started at an `hour` and ended, with a best `value`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    begun(folder, resolved(model="language:tiny"))
    times = (("started", 0), ("stopped", 5))
    lines = []
    for kind, step in times:
        event = {"time": f"2026-01-02T{hour:02}:00:00Z", "kind": kind, "step": step, "facts": {}}
        lines.append(json.dumps(event))
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    result = {"status": "completed", "steps": 5, "wall_s": 61.0, "model": "language:tiny"}
    result |= {"mode": "default", "engine": "local"}
    result["peak_memory_bytes"] = {"device": None, "host": 2**30}
    if value is not None:
        best = {"metric": metric, "value": value, "step": 5, "direction": direction}
        result["best"] = best
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def files_of(folder):
    return {path: os.stat(path).st_mtime_ns for path in folder.rglob("*")}


def test_runs_are_listed_by_start_or_metric_with_damaged_and_unfinished_ones(said, here):
    assert said("list", "runs", "--json") == []
    ended(here / "runs" / "late", 9, 0.5)
    ended(here / "runs" / "nan", 8, "NaN")
    ended(here / "runs" / "early", 7, 0.7)
    ended(here / "runs" / "other", 6, 0.9, "val_iou", "max")
    begun(here / "runs" / "waiting", resolved(model="language:tiny"))
    (ended(here / "runs" / "broken", 5) / "result.json").write_text("{")
    ended(here / "runs" / "compare-x" / "runs" / "default-1", 4, 0.8)
    staged = here / "runs" / "staged"
    for hour, name in ((1, "lower"), (2, "upper")):
        ended(staged / name, hour, 0.6)
    stages = [{"name": name, "folder": name} for name in ("lower", "upper")]
    (staged / "stages.json").write_text(json.dumps({"stages": stages}))
    (here / "runs" / "notes.txt").write_text("no run")
    before = files_of(here)

    rows = said("list", "runs", "--json")
    status = {row["name"]: row["status"] for row in rows}
    assert list(status)[-3:] == ["early", "nan", "late"], "by start"
    assert status == {
        "staged/lower": "completed",
        "staged/upper": "completed",
        "other": "completed",
        "early": "completed",
        "nan": "completed",
        "late": "completed",
        "waiting": "not started",
        "broken": "damaged",
    }
    best = said("list", "runs", "runs", "--by", "val_loss", "--json")
    names = ["late", "staged/lower", "staged/upper", "early"]
    assert [row["name"] for row in best[:4]] == names
    text = said("list", "runs").splitlines()
    assert len(text) == 1 + len(rows)
    (line,) = (line for line in text if line.startswith("late"))
    cells = ["late", "language:tiny", "default", "local", "completed", "5", "val_loss", "0.5000"]
    assert line.split() == [*cells, "1m01s", "1.0", "GiB"]
    compared = said("list", "runs", "runs/compare-x", "--json")
    assert [row["name"] for row in compared] == ["default-1"]
    alone = said("list", "runs", "runs/late", "--json")
    assert [row["name"] for row in alone] == ["late"]
    assert files_of(here) == before

    for words, where in (
        (("list", "runs", "--by", "val_los"), "--by val_los"),
        (("list", "runs", "absent"), "absent"),
        (("list", "models", "runs"), "runs"),
        (("list", "--by", "val_loss"), "--by val_loss"),
    ):
        assert f"command line: {where}" in said(*words, code=2).replace("list runs ", "")
