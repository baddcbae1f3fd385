from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.continual import lesson
from launcher.continual.lesson import Lesson, Part
from tests.launcher.given import resolved

PARTS = [Part(Path("r/0/data"), Path("r")), Part(Path("r/1/data"), Path("r/1/kept"))]
HOW = lesson.how(resolved().settings.continual)


def test_it_comes_back_from_json_as_it_was():
    told = Lesson(1, PARTS, HOW, 5.0)
    assert lesson.read(json.loads(json.dumps(lesson.plain(told)))) == told


def test_without_a_lesson_the_settings_stay_as_they_are():
    settings = resolved().settings
    assert lesson.view(settings, None) is settings


def test_the_first_data_is_read_from_its_folder_and_nothing_else_changes():
    settings = resolved().settings
    view = lesson.view(settings, Lesson(0, PARTS[:1], {}))
    assert view.data.path == "r/0/data"
    assert view.schedule == settings.schedule and view.train == settings.train


@pytest.mark.parametrize(
    ("curve", "seen"),
    [
        ("constant", "constant"),
        ("linear", "linear"),
        ("cosine", "cosine"),
        ("cosine-restarts", "cosine"),
        ("one-cycle", "cosine"),
    ],
)
def test_an_experience_warms_up_to_a_part_of_the_peak(curve, seen):
    settings = resolved(f"schedule.name={curve}", "optim.lr=0.01", "train.max_steps=7").settings
    view = lesson.view(settings, Lesson(1, PARTS, HOW))
    assert (view.schedule.name, view.schedule.warmup) == (seen, "5%")
    assert view.optim.lr == pytest.approx(0.003)
    assert (view.train.epochs, view.train.max_steps) == (1.0, None)
    assert not view.loader.persistent
    assert (settings.optim.lr, settings.train.max_steps) == (0.01, 7)


def test_a_part_is_read_from_its_own_folder_without_its_bad_files():
    settings = resolved().settings
    found = lesson.data_of(settings, PARTS[1], "skip")
    assert (found.data.path, found.data.on_bad) == ("r/1/data", "skip")
