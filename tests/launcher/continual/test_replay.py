from __future__ import annotations

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.continual import folders, replay
from launcher.continual.ledger import Experience, Ledger


@pytest.fixture
def run(tmp_path):
    """A run with two experiences, of which a refused one lies between."""
    Ledger(
        [
            Experience(0, {}, "learnt", 0, 10),
            Experience(1, {}, "learnt", 10, 20, {replay.PARTS: [0]}),
            Experience(2, {}, "refused", 20),
            Experience(3, {}, "training", 20, None, {replay.PARTS: [0, 1]}),
        ]
    ).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("after", "upto", "parts"), [(0, 5, [0]), (4, 10, [0]), (10, 20, [0, 1]), (20, 25, [0, 1, 3])]
)
def test_steps_are_taken_again_with_the_parts_they_were_taken_with(run, after, upto, parts):
    found = replay.lesson_at(run, after, upto)
    assert found.number == parts[-1]
    assert list(found.parts) == [folders.part(run, number) for number in parts]


@pytest.mark.parametrize(("after", "upto"), [(0, 12), (8, 25), (19, 21)])
def test_steps_of_two_experiences_cannot_be_taken_again_at_once(run, after, upto):
    with pytest.raises(SettingsError, match="are of more than one experience"):
        replay.lesson_at(run, after, upto)


def test_a_run_that_watches_nothing_has_no_lesson(tmp_path):
    assert replay.lesson_at(tmp_path, 0, 9) is None
