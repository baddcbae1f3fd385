import pytest

from tests.models.tasks import train_tiny
from tests.runs.test_health import advice


@pytest.mark.slow
def test_tiny_generates_unseen_sentences_from_eeg(tmp_path):
    _, found = train_tiny("eeg_text", tmp_path / "run", 200)
    assert found["val_retrieval"] > 0.5  # chance is 1/24
    assert found["val_rouge1_gain_in_se"] > 5
    assert found["val_rouge1"] > 0.6 > found["val_rouge1_noise"]
    assert found["val_retrieval_noise"] < 0.25
    assert advice(tmp_path / "run") == []  # a healthy run is told nothing


@pytest.mark.slow
def test_tiny_ends_at_chance_on_noise(tmp_path):
    # The run itself fails if a score is outside of its band.
    _, found = train_tiny("eeg_text", tmp_path / "run", 80, data__control="noise")
    assert -3 <= found["val_rouge1_gain_in_se"] <= 2
    assert found["val_retrieval"] < 1 / 24 + 3 * (1 / 24 * 23 / 24 / 38) ** 0.5
    assert found["val_rouge1"] < 0.35


@pytest.mark.slow
def test_tiny_fills_gaps_but_not_without_information(tmp_path):
    encoder = {"model__stage": "encoder"}
    _, found = train_tiny("eeg_text", tmp_path / "run", 150, **encoder)
    assert found["val_masked_r2"] > 0.03  # the mean gives 0
    _, found = train_tiny("eeg_text", tmp_path / "noise", 40, **encoder, data__control="noise")
    assert found["val_masked_r2"] <= 0.02
