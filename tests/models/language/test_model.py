import torch

from models.language.config import SIZES
from models.language.model import Transformer

PARAMETERS = {
    "tiny": 124_224,
    "small": 887_936,
    "lite": 4_889_856,
    "full": 25_838_080,
    "124M": 123_587_328,
    "350M": 359_842_816,
    "1.3B": 1_317_373_952,
}


def test_parameters_are_exactly_those_of_the_table():
    for name, size in SIZES.items():
        with torch.device("meta"):
            model = Transformer(size)
        d, f = size.width, size.hidden
        formula = size.vocabulary * d + size.layers * (4 * d * d + 3 * d * f + 2 * d) + d
        assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name] == formula, name


def test_a_packed_row_gives_each_document_the_logits_it_has_alone():
    model = Transformer(SIZES["tiny"])
    first, second = torch.randint(0, 272, (1, 9)), torch.randint(0, 272, (1, 15))
    boundaries = torch.tensor([0, 9, 24], dtype=torch.int32)
    packed = model(torch.cat((first, second), dim=1), boundaries=boundaries)
    torch.testing.assert_close(packed[:, :9], model(first), atol=1e-5, rtol=1e-4)
    # The second document starts nine positions later; rotary attention is relative.
    torch.testing.assert_close(packed[:, 9:], model(second), atol=1e-5, rtol=1e-4)


def test_no_token_sees_a_later_one():
    model = Transformer(SIZES["tiny"])
    ids = torch.randint(0, 272, (1, 20))
    changed = ids.clone()
    changed[0, 12] = (changed[0, 12] + 1) % 272
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.equal(before[:, 12:], after[:, 12:])
