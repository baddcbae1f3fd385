import numpy as np
import pytest
import torch

from gearshift.models.base import DataError
from gearshift.models.common.predictions import FixedDraws
from gearshift.models.eeg_text.dataset import SampleRules, encoder_inputs, standardize
from gearshift.models.eeg_text.network import pool_tokens

RULES = SampleRules(samples=80, windows=4, seed=0, is_noise=False)


def test_a_token_of_a_segment_is_the_mean_of_consecutive_tokens():
    lengths = [80, 30, 203]  # one window, one of them short, three windows of 17 tokens
    batch = encoder_inputs([np.ones((n, 105), dtype=np.float32) for n in lengths], RULES)
    assert batch["eeg"].shape == (5, 80, 105) and batch["eeg_pool"].shape == (3, 20, 4)
    assert batch["eeg_windows"].sum(1).tolist() == [80, 30, 68, 68, 67]
    assert batch["eeg_mask"].sum(1).tolist() == [80, 30, 68]
    states = torch.randn(5, 20, 6, generator=torch.Generator().manual_seed(0))
    found = pool_tokens(states, batch["eeg_pool"])
    torch.testing.assert_close(found[0], states[0])
    torch.testing.assert_close(found[1, :8], states[1, :8])
    whole = torch.cat([states[2, :17], states[3, :17], states[4, :17]])
    torch.testing.assert_close(found[2, :17], whole.view(17, 3, 6).mean(1))
    assert not found[1, 8:].any() and not found[2, 17:].any()
    valid = (batch["eeg_pool"] >= 0).any(2)
    assert torch.equal(valid, batch["eeg_mask"][:, ::4])


def test_a_segment_of_one_window_has_the_outputs_it_has_without_windows(text_task):
    task = text_task
    model = task.build().eval()
    segments = [task.data("train").input_eeg(0), task.data("train").input_eeg(1)[:251]]
    alone, beside = (
        encoder_inputs(segments, SampleRules(480, windows, 0, False)) for windows in (1, 3)
    )
    memory = model(alone["eeg"], alone["eeg_mask"])
    found = model(beside["eeg"], beside["eeg_windows"], pool=beside["eeg_pool"])
    assert torch.equal(beside["eeg_mask"], alone["eeg_mask"])
    valid = alone["eeg_mask"][:, ::4]
    torch.testing.assert_close(found[valid], memory[valid])


def test_all_of_a_long_segment_reaches_the_logits(ready_task, batch_of):
    task = ready_task(seq_len=160)
    assert task.facts()["time_kept"] == 1
    model, batch = task.build().eval(), batch_of(task, 2, "train")
    assert batch["eeg"].shape == (6, 160, 105)
    loss = task.loss(model, batch).sum
    for window in range(3):
        changed = batch | {"eeg": batch["eeg"].clone()}
        changed["eeg"][window] += torch.linspace(0, 3, 160)[:, None]
        assert task.loss(model, changed).sum != loss
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_share_too_small_for_any_span_is_an_error(ready_task):
    with pytest.raises(DataError) as error:
        ready_task(stage="encoder", seq_len=160, mask_share=0.01)
    assert error.value.where == "model.mask_share" and error.value.fix


@pytest.mark.parametrize("control", ["real", "noise"])
def test_every_window_is_a_sample_of_masked_pre_training(ready_task, batch_of, control):
    task = ready_task(stage="encoder", seq_len=160, control=control)
    samples = task.data("train")
    assert len(samples) == 3 * len(set(samples.numbers)) == task.facts()["samples"]["train"]
    first = [samples.sample(index, FixedDraws())["eeg"] for index in range(3)]
    np.testing.assert_array_equal(np.concatenate(first), standardize(samples.items[0].load(), 480))
    assert samples.items[5] == samples.items[3] != samples.items[2]
    batch = batch_of(task, 4, "train")
    assert batch["eeg"].shape == (4, 160, 105)
    assert torch.isfinite(task.loss(task.build(), batch).sum)
