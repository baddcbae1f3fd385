import numpy as np
import pytest

from models.base import DataError
from models.doc_translation.dataset import permute_images


def test_every_image_is_used_once_and_never_by_its_own_document():
    rng = np.random.default_rng(3)
    for _ in range(50):
        documents = [f"d{i}" for i in rng.integers(0, rng.integers(4, 30), 60)]
        if max(documents.count(d) for d in set(documents)) > 30:
            continue
        shown = permute_images(documents, seed=int(rng.integers(1000)))
        assert sorted(shown) == list(range(60))
        assert all(documents[i] != documents[j] for i, j in enumerate(shown))


def test_more_than_half_of_the_pages_in_one_document_are_an_error():
    shown = permute_images(["a", "b", "a", "c"], seed=0)
    assert {int(shown[0]), int(shown[2])} == {1, 3}
    with pytest.raises(DataError) as error:
        permute_images(["a", "a", "a", "b", "c"], seed=0)
    assert error.value.message == (
        "the noise control cannot permute the images of 5 pages: 3 of them belong to one document"
    )
