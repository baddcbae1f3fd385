import pytest

from models.abr.curriculum import Curriculum

CURRICULUM = Curriculum({"latency": 5, "class": 3, "threshold": 10}, ramp=5)
TERMS = ("signal", "latency", "class", "threshold")


def test_terms_start_one_after_the_other_and_rise_evenly():
    at = {epoch: CURRICULUM.factors(TERMS, epoch, 100) for epoch in (0, 4, 7.5, 10, 12.5, 15)}
    assert at[0] == {"signal": 1, "latency": 0, "class": 0, "threshold": 0}
    assert at[4] == {"signal": 1, "latency": 0, "class": 0.2, "threshold": 0}
    assert at[7.5] == {"signal": 1, "latency": 0.5, "class": 0.9, "threshold": 0}
    assert at[10]["latency"] == 1 and at[12.5]["threshold"] == 0.5
    assert set(at[15].values()) == {1.0}


@pytest.mark.parametrize("epochs", [0.5, 1, 8, 20])
def test_a_short_run_has_every_term_at_its_weight_by_60_percent(epochs):
    done = CURRICULUM.factors(TERMS, 0.6 * epochs, epochs)
    assert done == pytest.approx(dict.fromkeys(TERMS, 1.0))
    before = CURRICULUM.factors(TERMS, 0.5 * epochs, epochs)
    assert 0 < before["threshold"] < 1 == before["latency"]


def test_only_the_terms_that_there_are_shorten_it():
    assert CURRICULUM.factors(("signal", "class"), 8, 14) == {"signal": 1, "class": 1}
    assert CURRICULUM.factors(("signal",), 0, 1) == {"signal": 1.0}


def test_without_a_ramp_a_term_starts_whole():
    at_once = Curriculum({"class": 2}, ramp=0)
    assert at_once.factors(("class",), 1.9, 10)["class"] == 0
    assert at_once.factors(("class",), 2, 10)["class"] == 1
