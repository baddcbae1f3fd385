import pytest
import torch
from safetensors.torch import save_file

from models.base import DataError
from models.eeg_text.config import SIZES
from models.eeg_text.network import weights
from models.eeg_text.network.model import EegText, MaskedEeg


@pytest.fixture
def first():
    torch.manual_seed(1)
    return MaskedEeg(SIZES["tiny"], 160, 0.0)


@pytest.fixture
def second():
    torch.manual_seed(2)
    return EegText(SIZES["tiny"], 160, 256, 0.0)


def test_all_weights_of_a_pre_trained_encoder_are_loaded(tmp_path, first, second):
    path = tmp_path / "best" / "model.safetensors"
    path.parent.mkdir()
    save_file(first.state_dict(), path)
    summary = weights.load("model.encoder", second.encoder, tmp_path, "encoder.")
    expected = first.encoder.state_dict()
    assert expected.keys() == second.encoder.state_dict().keys()
    assert summary == f"loaded {len(expected)}/{len(expected)} tensors from {path}"
    for name, tensor in second.encoder.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("change", ["missing", "strange", "shape"])
def test_missing_tensors_are_an_error_and_change_nothing(tmp_path, first, second, change):
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    name = "encoder.project.weight"
    if change == "strange":
        state["encoder.extra"] = torch.zeros(1)
    elif change == "missing":
        del state[name]
    else:
        state[name] = state[name][:8].clone()
    save_file(state, tmp_path / "a.safetensors")
    before = {name: tensor.clone() for name, tensor in second.state_dict().items()}
    with pytest.raises(DataError) as error:
        weights.load("model.encoder", second.encoder, tmp_path / "a.safetensors", "encoder.")
    total = len(second.encoder.state_dict())
    matched = total if change == "strange" else total - 1
    assert f"is another encoder: {matched} of {total} tensors match" in error.value.message
    assert error.value.where == ("encoder.extra" if change == "strange" else name)
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_folder_without_weights_and_a_file_of_another_kind_are_errors(tmp_path, second):
    with pytest.raises(DataError) as error:
        weights.load("model.encoder", second.encoder, tmp_path, "encoder.")
    assert error.value.message == f"model.encoder '{tmp_path}' has no weights"
    (tmp_path / "a.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="cannot be read"):
        weights.load("model.encoder", second.encoder, tmp_path / "a.safetensors", "encoder.")
