import pytest
import torch

from models.doc_translation.config import SIZES
from models.doc_translation.masked_pages import MaskedEncoders, flops_per_sample, page_of, patches

TINY = SIZES["tiny"]
HEADS = (65 * 3 * 16**2) + (33 * 3 * 8**2) + 3 * 4**2
"""Both linear layers with bias, and the pixels of masked patches of the local view."""


def views(batch=2):
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(batch, 3, 64, 64, generator=generator),
        torch.randn(batch, 3, 96, 64, generator=generator),
    )


def masks(batch=2):
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(batch, n, generator=generator) < 0.5 for n in (16, 96))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MaskedEncoders(TINY)


def test_the_model_is_both_encoders_and_two_linear_heads(model):
    assert sum(p.numel() for p in model.parameters()) == 117_632 + 25_116 + HEADS


@pytest.mark.parametrize("name", SIZES)
def test_each_output_token_predicts_its_own_pixels(name):
    size = SIZES[name]
    with torch.device("meta"):
        model = MaskedEncoders(size)
        pages = (
            torch.empty(1, 3, size.whole.pixels, size.whole.pixels),
            torch.empty(1, 3, *size.local.pixels),
        )
        hidden = [torch.empty(1, v.tokens, dtype=torch.bool) for v in (size.whole, size.local)]
        found = model(*pages, *hidden)
    expected = [patches(pages[0], size.whole.patch), patches(pages[1], size.local.patch)]
    assert [x.shape for x in found] == [x.shape for x in expected]


def test_a_page_is_its_patches_in_rows():
    page = torch.arange(2 * 3 * 16 * 8.0).view(2, 3, 16, 8)
    cut = patches(page, 4)
    assert cut.shape == (2, 8, 48)
    assert torch.equal(cut[1, 3].view(3, 4, 4), page[1, :, 4:8, 4:8])  # second row, second column
    assert torch.equal(page_of(cut, 4, 8), page)


def test_masked_pixels_have_no_effect_and_visible_ones_do(model):
    hidden = masks()
    given = views()
    changed = []
    for page, mask, patch in zip(given, hidden, (16, 8), strict=True):
        cut = patches(page.clone(), patch)
        cut[mask] += 1
        changed.append(page_of(cut, patch, 64))
    with torch.no_grad():
        first, other = model(*given, *hidden), model(*changed, *hidden)
        seen = model(*(page + 1 for page in given), *hidden)
    for own, same, moved in zip(first, other, seen, strict=True):
        assert torch.equal(own, same)
        assert not torch.allclose(own, moved)


def test_every_parameter_gets_a_gradient_of_ordinary_size(model):
    model.zero_grad()
    whole, near = model(*views(), *masks())
    (whole.square().mean() + near.square().mean()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert not [name for name, gradient in gradients.items() if gradient is None]
    # Masked pixels of 0 gave norms of 1e11: a layer norm follows the embedding.
    assert max(gradient.norm() for gradient in gradients.values()) < 100
    model.zero_grad()


def test_flops_count_the_forward_pass_three_times():
    def products(inputs, outputs, tokens):
        return 2 * inputs * outputs * tokens

    heads = products(64, 3 * 16**2, 16) + products(32, 3 * 8**2, 96)
    assert flops_per_sample(TINY) > 3 * heads
    layers = 2 * (4 * products(64, 64, 17) + 2 * products(64, 128, 17))
    assert flops_per_sample(TINY) > 3 * (heads + layers)
