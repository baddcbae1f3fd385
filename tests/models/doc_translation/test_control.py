import numpy as np
import pytest

from models.base import DataError
from models.doc_translation.noise_control import strangers


def test_every_image_is_shown_once_and_never_to_its_own_document():
    rng = np.random.default_rng(3)
    for _ in range(50):
        documents = [f"d{i}" for i in rng.integers(0, rng.integers(4, 30), 60)]
        if max(documents.count(d) for d in set(documents)) > 30:
            continue
        shown = strangers(documents, seed=int(rng.integers(1000)))
        assert sorted(shown) == list(range(60))
        assert all(documents[i] != documents[j] for i, j in enumerate(shown))


def test_half_of_the_pages_may_be_of_one_document_and_no_more():
    shown = strangers(["a", "b", "a", "c"], seed=0)
    assert {int(shown[0]), int(shown[2])} == {1, 3}
    with pytest.raises(DataError) as error:
        strangers(["a", "a", "a", "b", "c"], seed=0)
    assert error.value.message == (
        "the noise control cannot exchange the images of 5 pages: 3 of them are of one document"
    )


def test_the_seed_decides():
    documents = [f"d{i // 2}" for i in range(40)]
    one, same, other = (strangers(documents, seed).tolist() for seed in (0, 0, 1))
    assert one == same != other
