import pytest

from tests.models.tasks import train_tiny
from tests.runs.test_health import advice

SHORT = {"data__max_new_tokens": 10, "data__beams": 1, "eval__every": 450}
"""A card has 9 tokens; one evaluation, without the beam search at its end."""


@pytest.mark.slow
def test_tiny_translates_unseen_cards(tmp_path):
    # Three quarters of the steps of the default.
    result, metrics = train_tiny("doc_translation", tmp_path / "run", 450, **SHORT)
    assert advice(tmp_path / "run") == []  # a healthy run is told nothing
    assert result["parameters"] == 338_877
    # Blank pages, which have no information, give less than 3.
    assert metrics["val_bleu"] > 40
    assert metrics["val_steds"] > 95


@pytest.mark.slow
def test_images_of_other_documents_give_no_gain(tmp_path):
    noise = {"data__control": "noise", **SHORT}
    result, metrics = train_tiny("doc_translation", tmp_path / "run", 100, **noise)
    band = result["data"]["control"]["val_bleu_gain"]
    assert metrics["val_bleu_gain"] <= band["max"] == 1.0
    assert metrics["val_bleu"] < 10
