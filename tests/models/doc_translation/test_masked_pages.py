import numpy as np
import pytest
import torch

from models.common.predictions import FixedDraws
from models.doc_translation.config import SIZES
from models.doc_translation.masked_pages import (
    MaskedEncoders,
    MaskedMetric,
    draw_mask,
    flops_per_sample,
    page_of,
    patches,
    predict,
)
from tests.models.doc_translation.test_model import views
from tests.models.tasks import batch_of

TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def masked_task(make_task):
    task = make_task(stage="encoder")
    task.setup()
    return task


def test_the_share_of_masked_patches_is_exact_and_leaves_one_visible():
    for share, masked in ((0.5, 8), (0.01, 1), (0.99, 15)):
        assert draw_mask(np.random.default_rng(0), 16, share).sum() == masked


def test_the_loss_counts_masked_patches_only(masked_task):
    batch = batch_of(masked_task, 4)
    torch.manual_seed(0)
    model = masked_task.build()
    whole, near = predict(model, batch)

    def loss(guesses):
        return masked_task.loss(lambda *_: guesses, batch).sum.item()

    moved = []
    for guess, view in ((whole, "global"), (near, "local")):
        mask = batch[f"mask_{view}"][..., None]
        moved.append((guess + ~mask, guess + mask.float()))
    plain = loss((whole, near))
    assert loss((moved[0][0], moved[1][0])) == plain
    assert loss((moved[0][1], near)) != plain and loss((whole, moved[1][1])) != plain
    expected = 0.0
    for guess, view, patch in ((whole, "global", 16), (near, "local", 8)):
        page = batch[f"page_{view}"]
        for row, column in batch[f"mask_{view}"].nonzero().tolist():
            per_line = page.shape[3] // patch
            top, left = column // per_line * patch, column % per_line * patch
            true = page[row, :, top : top + patch, left : left + patch]
            expected += (guess[row, column].view(3, patch, patch) - true).square().mean().item()
    assert plain == pytest.approx(expected, rel=1e-5)
    assert masked_task.num_units(batch) == 4 * (8 + 48)


def test_the_mean_of_masked_pixels_scores_0_and_the_truth_1(masked_task):
    batch = batch_of(masked_task, 8, "val")
    metric = MaskedMetric(TINY, masked_task.mean_page)
    truth, means = [], []
    for view, patch in (("global", 16), ("local", 8)):
        page = batch[f"page_{view}"]
        b, _, height, width = page.shape
        cut = page.view(b, 3, height // patch, patch, width // patch, patch)
        cut = cut.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, 3 * patch**2)
        truth.append(cut)
        means.append(torch.full_like(cut, cut[batch[f"mask_{view}"]].mean().item()))
    exact = metric.result(metric.counts(truth, batch))
    assert (exact["val_loss"], exact["val_masked_r2"]) == (0, 1)
    mean = metric.result(metric.counts(means, batch))
    for name in ("val_masked_r2", "val_masked_r2_global", "val_masked_r2_local"):
        assert mean[name] == pytest.approx(0, abs=1e-5)
    of_page = [part.expand(8, -1, -1) for part in metric.means]
    assert metric.result(metric.counts(of_page, batch))["val_masked_gain"] == pytest.approx(0)
    assert mean["val_masked_gain"] < -0.1  # cards are alike


def test_the_mean_page_is_that_of_training_pages(masked_task, monkeypatch):
    monkeypatch.setattr("models.doc_translation.masked_pages.MEAN_OF", 3)
    found = masked_task.data("train").mean_page()
    pages = masked_task.data("train")
    numbers = (0, (len(pages) - 1) // 2, len(pages) - 1)
    batch = masked_task.collate([pages.sample(n, FixedDraws()) for n in numbers])
    torch.testing.assert_close(found[0], batch["page_global"].mean(0, keepdim=True))
    torch.testing.assert_close(found[1], batch["page_local"].mean(0, keepdim=True))


def test_a_noise_control_shows_another_document_and_keeps_its_goal(masked_task, ready_task):
    noise = ready_task(stage="encoder", control="noise")
    first, other = batch_of(masked_task, 4), batch_of(noise, 4)
    for view in ("global", "local"):
        assert torch.equal(first[f"page_{view}"], other[f"page_{view}"])
        assert not torch.equal(other[f"seen_{view}"], other[f"page_{view}"])
    torch.manual_seed(0)
    model = noise.build()
    own = predict(model, {k: v for k, v in other.items() if not k.startswith("seen")})
    assert not torch.equal(predict(model, other)[0], own[0])
    assert noise.facts()["control"] == {"val_masked_gain": {"max": 0.02}}
    assert "control" not in masked_task.facts()


HEADS = (65 * 3 * 16**2) + (33 * 3 * 8**2) + 3 * 4**2
"""Both linear layers with bias, and the pixels of masked patches of the local view."""


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
