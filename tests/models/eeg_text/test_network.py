import pytest
import torch
from torch import nn

from gearshift.models.eeg_text.config import SIZES
from gearshift.models.eeg_text.encoder import Encoder, MaskedBatchNorm
from gearshift.models.eeg_text.montage import INDICES, SLOTS, UNASSIGNED
from gearshift.models.eeg_text.network import EegText, MaskedEeg

TINY = SIZES["tiny"]
PAD = 256
IDS = torch.arange(18).view(2, 9)
HIDDEN = torch.zeros(2, 40, dtype=torch.bool).index_fill(1, torch.tensor([5, 6, 20]), True)


PARAMETERS = {
    "tiny": (243_288, 271_708, 316_248),
    "lite": (63_615_424, None, None),
    "full": (270_002_048, 270_999_524, 352_138_112),
}
"""Of the encoder, of the model of stage encoder and of the whole model."""


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", PARAMETERS)
def test_each_part_has_exactly_the_parameters_of_the_table(name):
    size = SIZES[name]
    with torch.device("meta"):
        models = Encoder(size, 200, 0.1), MaskedEeg(size, 800, 0.1), EegText(size, 800, 1, 0.1)
    counts = tuple(map(count, models))
    assert counts[2] == size.parameters
    assert counts == tuple(told or own for told, own in zip(PARAMETERS[name], counts, strict=True))


def text_model(dropout=0.0):
    torch.manual_seed(0)
    return EegText(TINY, 160, PAD, dropout)


def masked_model():
    torch.manual_seed(0)
    return MaskedEeg(TINY, 160, 0.0)


@pytest.fixture
def eeg():
    return torch.randn(2, 160, 105, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def valid():
    return torch.arange(160) < torch.tensor([[160], [92]])


def test_padding_does_not_change_the_outputs(eeg, valid):
    other = torch.where(valid[:, :, None], eeg, 100.0)
    for training, build, given in ((True, text_model, IDS), (False, masked_model, HIDDEN)):
        model, twin = build().train(training), build().train(training)
        result, expected = model(other, valid, given), twin(eeg, valid, given)
        if given is HIDDEN:
            result, expected = result * valid[:, :, None], expected * valid[:, :, None]
        torch.testing.assert_close(result, expected)
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(buffer, twin.get_buffer(name))


def test_masked_normalization_uses_valid_samples_only():
    ours, theirs = MaskedBatchNorm(7), nn.BatchNorm1d(7)
    x = torch.randn(3, 7, 20) * 3 + 1
    valid = torch.arange(20) < torch.tensor([[20], [11], [5]])
    y = ours(x, valid)
    unpadded = x.transpose(1, 2)[valid]
    torch.testing.assert_close(y.transpose(1, 2)[valid], theirs(unpadded))
    assert not y.transpose(1, 2)[~valid].any()
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(
        ours.eval()(x, valid).transpose(1, 2)[valid], theirs.eval()(unpadded), atol=1e-5, rtol=1e-5
    )


def test_a_hidden_token_is_predicted_from_the_visible_ones_only(eeg, valid):
    model = masked_model().eval()
    other = eeg.clone()
    other[:, 20:28] += 5  # tokens 5 and 6
    torch.testing.assert_close(model(other, valid, HIDDEN), model(eeg, valid, HIDDEN))
    other[:, 28] += 5
    assert not torch.allclose(model(other, valid, HIDDEN), model(eeg, valid, HIDDEN))


def test_no_token_of_text_sees_a_later_one(eeg, valid):
    model = text_model().eval()
    changed = IDS.clone()
    changed[:, 5] += 1
    before, after = model(eeg, valid, IDS), model(eeg, valid, changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


def test_ten_regions_have_their_channels_and_two_channels_are_unassigned():
    assert sorted(map(len, INDICES.values())) == [4, 4, 6, 9, 9, 9, 11, 11, 15, 25]
    taken = [SLOTS[index] for indices in INDICES.values() for index in indices]
    assert len(SLOTS) == 105 and len(set(taken)) == len(taken) == 103
    assert set(SLOTS) - set(taken) == set(UNASSIGNED)
    assert SLOTS[0] == "E2" and SLOTS[-1] == "Cz"
