"""log.txt keeps every text with its time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from training.logging.outputs import LogFileOutput


def test_each_line_has_its_time(tmp_path: Path):
    log = LogFileOutput(tmp_path, now=lambda: datetime(2025, 1, 2, 3, 4, 5, 6))
    log.say("head", "model  tiny\nmode   lite")
    log.say("warning", "careful")
    log.say("log", "event  \udc80")
    log.show("before training", "Once\nupon")
    log.close()

    assert (tmp_path / "log.txt").read_text().splitlines() == [
        "2025-01-02 03:04:05  model  tiny",
        "2025-01-02 03:04:05  mode   lite",
        "2025-01-02 03:04:05  warning    careful",
        "2025-01-02 03:04:05  event  \\udc80",
        "2025-01-02 03:04:05  before training",
        "2025-01-02 03:04:05  | Once",
        "2025-01-02 03:04:05  | upon",
    ]
