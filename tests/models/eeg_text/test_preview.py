import numpy as np
import pytest
import torch

from models.common.predictions import FixedDraws
from models.eeg_text.metric import masked_values

CPU = torch.device("cpu")


def test_predicted_sentences_are_those_of_the_preview(text_task):
    torch.manual_seed(0)
    model = text_task.build().eval()
    found = text_task.predictions(model)
    lines = text_task.preview(model).splitlines()
    assert [line.split()[0] for line in lines] == ["read", "generated"] * 3
    shown = [line.split(maxsplit=1)[1:] or [""] for line in lines]
    assert [[row[1]] for row in found.rows] == shown[::2]
    assert [[row[2]] for row in found.rows] == shown[1::2]
    assert len(found.pictures) == 3 and "generated sentence" in found.pictures[0].caption


def test_masked_eeg_is_scored_per_recording(masked_task):
    torch.manual_seed(0)
    model, samples = masked_task.build().eval(), masked_task.data("val")
    assert masked_task.preview(model) is None
    with torch.no_grad():
        found = masked_task.predictions(model)
        batch = masked_task.collate([samples.sample(len(samples) - 1, FixedDraws())])
        guess = model(batch["eeg"], batch["eeg_mask"], batch["mask_target"])
    chosen = masked_values(batch).numpy()
    true, own = batch["eeg"].numpy()[chosen], guess.numpy()[chosen]
    r2 = 1 - ((true - own) ** 2).sum() / ((true - true.mean()) ** 2).sum()
    assert found.columns == ("recording", "reader", "masked_r2", "interpolation_r2")
    assert found.rows[-1][2] == pytest.approx(r2, rel=1e-4)
    assert np.isfinite([row[2:] for row in found.rows]).all()
