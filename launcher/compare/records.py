"""What a comparison leaves: compare.json for machines, compare.html for people."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from launcher.compare import page
from launcher.compare.match import Facts, Outcome
from launcher.compare.rows import Row, thinned
from training.logging.plain_json import encode

JSON_FILE = "compare.json"
PAGE = "compare.html"


def write(folder: Path, facts: Facts, outcome: Outcome) -> str:
    """Leave both files in `folder`; the text of compare.json. Touches the disk."""
    told = encode(_content(facts, outcome), indent=2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON_FILE).write_text(told + "\n", encoding="utf-8")
    (folder / PAGE).write_text(page.render(facts, outcome), encoding="utf-8")
    return told


def _content(facts: Facts, outcome: Outcome) -> dict[str, Any]:
    until = facts.limits.until
    return {
        "command": facts.command,
        "machine": facts.machine,
        "device": facts.device,
        "at": facts.at.isoformat(timespec="seconds"),
        "steps": facts.limits.steps,
        "epochs": facts.limits.epochs,
        "until": None if until is None else until.text(),
        "repeats": facts.repeats,
        "warnings": list(outcome.warnings),
        "rows": [_row(row) for row in outcome.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    told = asdict(row)
    for name in ("curve", "losses"):
        told[name] = thinned(told[name])
    return told
