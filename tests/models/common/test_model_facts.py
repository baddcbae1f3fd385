from dataclasses import dataclass

import pytest

from models.common import model_facts
from models.common.model_facts import FACTS_FILE
from tests.models.errors import error_of


@dataclass(frozen=True)
class Facts:
    window_ms: float
    terms: tuple[str, ...] = ()


def test_facts_are_saved_in_full_precision_and_written_again_only_if_they_differ(tmp_path):
    facts = Facts(100 / 3, ("signal", "class"))
    for _ in range(2):
        model_facts.save(facts, tmp_path / "run")
        number = (tmp_path / "run" / FACTS_FILE).stat().st_ino
    model_facts.save(facts, tmp_path / "run")
    assert (tmp_path / "run" / FACTS_FILE).stat().st_ino == number
    assert model_facts.load(tmp_path / "run", Facts) == facts
    model_facts.save(Facts(2.0), tmp_path / "run")
    assert model_facts.load(tmp_path / "run", Facts) == Facts(2.0)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is damaged: Invalid JSON"),
        ("3", "is damaged: Input should be"),
        ('{"window_ms": "long"}', "is damaged: window_ms: Input should be a valid number"),
        ('{"window_ms": 1, "terms": 3}', "is damaged: terms: Input should be a valid"),
    ],
)
def test_a_folder_without_the_facts_is_an_error(tmp_path, content, problem):
    if content is not None:
        (tmp_path / FACTS_FILE).write_text(content)
    error = error_of(model_facts.load, tmp_path, Facts)
    assert error.message.startswith(f"'{tmp_path / FACTS_FILE}' {problem}")
    assert error.where == str(tmp_path) and "resume the run" in error.fix
