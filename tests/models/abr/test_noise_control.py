import numpy as np
import pytest

from models.abr.dataset import chance_macro_f1, permute_responses
from tests.models.errors import error_of


def test_every_response_goes_to_another_patient_and_none_is_lost():
    for counts in ([5, 5], [4, 3, 2, 1], [1] * 30, [10, 4, 6]):
        patient = np.repeat([f"p{i}" for i in range(len(counts))], counts)
        order = permute_responses(patient, np.random.default_rng(0))
        assert sorted(order) == list(range(len(patient)))
        assert not (patient[order] == patient).any()


def test_a_patient_with_more_than_half_of_a_split_is_an_error():
    patients = np.array(["a", "a", "a", "b"])
    assert str(error_of(permute_responses, patients, np.random.default_rng(0))) == (
        "the noise control cannot permute 4 responses: one patient has 3\n"
        "  where         data.control\n"
        "  allowed       no patient with more than half of the responses of a split"
    )


def test_chance_is_the_best_of_two_blind_guesses():
    for counts, wanted in (
        ((797, 8, 106, 33, 56), 0.177),  # the most frequent class alone
        ((40, 15, 15, 15, 15), 0.190),  # each class equally often
        ((1, 0, 0, 0, 0), 1.0),  # a single class is always right
        ((1, 1, 0, 0, 0), 0.5),
    ):
        target = np.repeat(np.arange(5), counts)
        assert chance_macro_f1(target) == pytest.approx(wanted, abs=5e-4), counts
