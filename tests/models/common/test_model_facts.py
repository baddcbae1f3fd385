from dataclasses import dataclass

from models.common import model_facts
from models.common.model_facts import FACTS_FILE


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
