import numpy as np
import pytest

from models.abr.dataset import chance_macro_f1


def test_chance_is_the_best_of_two_blind_guesses():
    for counts, wanted in (
        ((797, 8, 106, 33, 56), 0.177),  # the most frequent class alone
        ((40, 15, 15, 15, 15), 0.190),  # each class equally often
        ((1, 0, 0, 0, 0), 1.0),  # a single class is always right
        ((1, 1, 0, 0, 0), 0.5),
    ):
        target = np.repeat(np.arange(5), counts)
        assert chance_macro_f1(target) == pytest.approx(wanted, abs=5e-4), counts
