import pytest
import torch
from torch import nn

from models.eeg_text.config import SIZES
from models.eeg_text.encoder import Encoder, MaskedBatchNorm
from models.eeg_text.network import EegText, MaskedEeg, MaskedHead

TINY = SIZES["tiny"]
ENCODERS = {"tiny": 243_288, "lite": 63_615_424, "full": 270_002_048}
STAGE_1 = {"tiny": 271_708, "full": 270_999_524}
STAGE_2 = {"tiny": 316_248, "full": 352_138_112}
PAD = 256
IDS = torch.arange(18).view(2, 9)
HIDDEN = torch.zeros(2, 40, dtype=torch.bool).index_fill(1, torch.tensor([5, 6, 20]), True)


def count(module):
    return sum(p.numel() for p in module.parameters())


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


@pytest.mark.parametrize("name", SIZES)
def test_the_encoder_has_exactly_the_parameters_of_the_table(name):
    with torch.device("meta"):
        encoder = Encoder(SIZES[name], 200, 0.1)
    assert count(encoder) == SIZES[name].encoder == ENCODERS[name]


@pytest.mark.parametrize("name", STAGE_1)
def test_encoder_and_head_have_exactly_the_parameters_of_the_table(name):
    size = SIZES[name]
    with torch.device("meta"):
        built = count(MaskedEeg(size, 800, 0.1))
        assert count(MaskedHead(size)) == size.head
    assert built == size.encoder + size.head == STAGE_1[name]


@pytest.mark.parametrize("name", SIZES)
def test_encoder_and_decoder_have_exactly_the_parameters_of_the_table(name):
    with torch.device("meta"):
        built = count(EegText(SIZES[name], 800, 1, 0.1))
    assert built == SIZES[name].parameters
    assert SIZES[name].parameters == STAGE_2.get(name, built)


@pytest.mark.parametrize("training", [True, False])
def test_padding_does_not_change_the_outputs(eeg, valid, training):
    other = torch.where(valid[:, :, None], eeg, 100.0)
    for build, given in ((text_model, IDS), (masked_model, HIDDEN)):
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


def test_a_frozen_encoder_does_not_change_while_the_decoder_is_trained(eeg, valid):
    model = text_model(dropout=0.5)
    model.freeze_encoder()
    before = {name: t.clone() for name, t in model.encoder.state_dict().items()}
    model.train()
    torch.testing.assert_close(model(eeg, valid), model(eeg, valid))  # without dropout
    model(eeg, valid, IDS).sum().backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.decoder.parameters())
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_blocks_are_all_layers_in_order():
    text, masked = text_model(), masked_model()
    assert len(masked.blocks()) == 10 + 1
    assert text.blocks()[:11] == text.encoder.blocks()
    assert text.blocks()[11:] == list(text.decoder.text.layers)
