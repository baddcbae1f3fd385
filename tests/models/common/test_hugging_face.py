import torch
from safetensors.torch import save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from models.common.hugging_face import stored_tensors


def test_values_are_read_into_a_tensor(tmp_path):
    save_file({"a": torch.arange(6.0).reshape(2, 3)}, tmp_path / "a.safetensors")
    (stored,) = stored_tensors(tmp_path).values()
    tensor = torch.zeros(2, 3)
    stored.read_into(tensor)
    assert torch.equal(tensor, torch.arange(6.0).reshape(2, 3))


def test_nothing_is_read_into_a_fake_tensor(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2, 3)}, path)
    (stored,) = stored_tensors(path).values()
    path.unlink()
    with FakeTensorMode():
        stored.read_into(torch.empty(2, 3))
