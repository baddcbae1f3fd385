import pytest
import torch

from tests.models.tasks import maker


@pytest.fixture(scope="session")
def make_task():
    """A task that is not set up yet."""
    return maker("language", 0.1)


@pytest.fixture(params=["llama", "gpt2"])
def folder(request, tmp_path):
    """The folder of a pretrained model, of each kind of layers."""
    from tests.models.language.test_pretrained import CONFIGS, save  # needs transformers

    return save(tmp_path / "model", CONFIGS[request.param]())


@pytest.fixture
def train():
    """Take `steps` deterministic steps of AdamW with a decaying learning rate."""

    def run(task, model, steps, lr=3e-3, batch=8):
        samples = task.data("train")
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        generator = torch.Generator().manual_seed(0)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 5) * (1 - step / steps)
            picked = torch.randint(len(samples), (batch,), generator=generator).tolist()
            given = task.collate([samples.sample(i, None) for i in picked])
            optimizer.zero_grad()
            (task.loss(model, given).sum / task.num_units(given)).backward()
            optimizer.step()

    return run


@pytest.fixture
def make(folder, tmp_path, ready_task):
    """A task with adapters of `folder`; settings of adapters, or of the model."""
    from gearshift.models.language.config import Lora
    from tests.models.language.test_pretrained import TEXT

    def made(quantize=None, start=None, **settings):
        path = tmp_path / "text.txt"
        path.write_text(TEXT, encoding="utf-8")
        given = {"path": path, "pretrained": str(folder), "seq_len": 32, "start": start}
        return ready_task(**given, lora=Lora(rank=4, **settings), quantize=quantize)

    return made
