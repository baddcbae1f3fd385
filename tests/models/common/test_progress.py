"""Progress of work on data."""

import time

from models.common import data_files


def test_lines_have_count_total_and_time_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with data_files.progress("tokenizing documents", 4000) as show:
        for second in range(31):
            now[0] = float(second)
            show(100 * second)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("tokenizing documents: 1,100 of 4,000")
    assert lines[1].startswith("tokenizing documents: 2,200 of 4,000, about 1")
