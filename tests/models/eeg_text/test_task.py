import numpy as np
import pytest
import torch

from gearshift.models.base import DataError
from gearshift.models.common.predictions import FixedDraws
from gearshift.models.eeg_text.dataset import phase_randomised, standardize
from tests.models.eeg_text.readers.writers import NAMES, waves, write_edf
from tests.models.errors import error_of
from tests.models.tasks import Draws


def test_eeg_is_centred_scaled_and_clipped_over_its_own_samples():
    rng = np.random.default_rng(0)
    eeg = (rng.standard_normal((1000, 105)) * 7 + 3).astype(np.float32)
    eeg[500, 4], eeg[:, 9] = 1e4, 2.5
    found = standardize(eeg, 800)
    assert found.shape == (800, 105) and found.dtype == np.float32
    np.testing.assert_allclose(found.mean(0)[:4], 0, atol=1e-5)
    np.testing.assert_allclose(found.std(0)[:4], 1, atol=1e-5)
    assert found.max() == 10 and not found[:, 9].any()
    np.testing.assert_allclose(found[400, 0], (eeg[500, 0] - eeg[100:900, 0].mean()) / eeg[100:900, 0].std(), rtol=1e-4)  # fmt: skip


def test_words_are_hidden_from_the_decoder_in_training_only(ready_task, batch_of):
    task = ready_task(word_dropout=0.5)
    hidden = task.tokenizer.hidden
    train = task.data("train")
    first, again, other = (train.sample(4, Draws(epoch))["inputs"] for epoch in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
    assert (first == hidden).any()
    starts = {int(train.sample(i, Draws(i))["inputs"][0]) for i in range(12)}
    assert starts == {task.tokenizer.start}
    assert hidden not in batch_of(task, split="val")["text_ids"]


def test_candidates_are_the_sentence_first_and_others_of_its_split(text_task):
    texts, samples = text_task.texts, text_task.data("val")
    split = set(text_task.groups["val"])
    for index in range(0, len(samples), 7):
        sample = samples.sample(index, FixedDraws())
        candidates = [texts.tokenizer.decode(row[1:]) for row in sample["candidates"]]
        assert (
            candidates[0] == sample["text"]
            and len(set(candidates)) == 24
            and set(candidates) <= split
        )


def test_other_eeg_is_of_another_sentence_and_noise_has_the_own_spectrum(text_task):
    samples = text_task.data("val")
    for index in range(0, len(samples), 9):
        sample = samples.sample(index, FixedDraws())
        stranger = int(samples.random_others[index])
        item = text_task.recordings.items[samples.numbers[stranger]]
        assert item.group != sample["sentence"]
        eeg, noise, other = sample["compared"]
        np.testing.assert_array_equal(other, samples.recorded_eeg(stranger))
        np.testing.assert_array_equal(eeg, sample["eeg"])
        spectra = [np.abs(np.fft.rfft(x, axis=0)) for x in (eeg, noise)]
        assert abs(np.corrcoef(eeg.ravel(), noise.ravel())[0, 1]) < 0.2
        np.testing.assert_allclose(spectra[0][1:], spectra[1][1:], rtol=0.05, atol=0.5)


def test_a_noise_control_without_text_predicts_the_recorded_eeg(ready_task, batch_of):
    task = ready_task(control="noise", stage="encoder")
    batch = batch_of(task)
    assert not torch.allclose(batch["seen"], batch["eeg"], atol=0.1)
    model = task.build()
    task.loss(model, batch).sum.backward()
    assert task.facts()["control"] == {"val_masked_r2": {"max": 0.02, "chance": 0.0}}


def test_eeg_without_text_is_an_error_with_both_fixes(ready_task, tmp_path):
    path = write_edf(tmp_path / "a.edf", NAMES, 40, make=waves)
    error = error_of(ready_task, path=path)
    assert error.where == str(path) and "data.texts=FILE" in error.allowed
    assert error.fix.endswith("--set model.stage=encoder")


def test_a_recording_without_text_trains_the_encoder(ready_task, tmp_path, batch_of):
    path = write_edf(tmp_path / "a.edf", NAMES, 100, make=waves)
    task = ready_task(path=path, stage="encoder", share=0.2)
    batch = batch_of(task)
    assert batch["recorded"].sum(1).tolist() == [len(NAMES)] * 3
    hidden = batch["mask_target"].sum().item() * 4
    assert task.num_units(batch) == hidden * len(NAMES)


def test_sentences_beside_a_recording_train_the_whole_model(ready_task, tmp_path, batch_of):
    path = write_edf(tmp_path / "a.edf", NAMES, 100, make=waves)
    rows = [f"{1.5 * i:.1f}\t1.2\tsentence number {i}" for i in range(60)]
    path.with_suffix(".tsv").write_text("\n".join(["onset_s\tduration_s\ttext", *rows]))
    task = ready_task(path=path, seq_len=480, share=0.2)
    assert task.facts()["candidates"] == 12
    assert (task.facts()["time_kept"], task.facts()["windows"]) == (1.0, 2)
    first = ready_task(path=path, seq_len=480, share=0.2, windows=1)
    assert first.facts()["time_kept"] == pytest.approx(480 / 600)
    assert first.facts()["windows"] == 1
    model, metric = task.build(), task.metric()
    found = metric.result(metric.update(model.eval(), batch_of(task, split="val")))
    assert np.isfinite(list(found.values())).all()


def weights_of(task, folder):
    """A file of the weights of a model that was just built."""
    from safetensors.torch import save_file

    task.setup()
    torch.manual_seed(3)
    model = task.build()
    first = dict(model.named_parameters())
    every = dict(model.named_parameters(remove_duplicate=False))
    state = {n: t for n, t in model.state_dict().items() if n in first or n not in every}
    save_file(state, folder / "model.safetensors")
    return state


def test_model_start_loads_all_tensors_of_stage_text_or_fails(make_task, ready_task, tmp_path):
    state = weights_of(make_task(), tmp_path)
    task = ready_task(start=str(tmp_path))
    found = task.build().state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert f"loaded {len(state)}/{len(state)} tensors" in task.facts()["start"]
    weights_of(make_task(stage="encoder"), tmp_path)
    with pytest.raises(DataError, match=r"model\.start .* is another model"):
        task.build()
    with pytest.raises(DataError, match="are both set"):
        make_task(start="a", encoder="b")


def test_an_unfrozen_top_is_trained_and_the_regions_are_not(ready_task, batch_of):
    task = ready_task(freeze_encoder=True, unfreeze="top", dropout=0.5)
    model = task.build().train()
    learning = {n for n, p in model.encoder.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in learning} == {
        *("layers", "norm", "project", "project_norm")
    }
    before = {n: b.clone() for n, b in model.encoder.named_buffers()}
    task.loss(model, batch_of(task)).sum.backward()
    assert all(p.grad is not None for n, p in model.encoder.named_parameters() if n in learning)
    assert all(torch.equal(before[n], b) for n, b in model.encoder.named_buffers())
    assert not any(module.training for module in model.encoder.regions.modules())
    assert model.encoder.layers[0].training
    assert task.frozen_encoder(model) is None


def test_operations_are_fewer_where_less_is_trained(ready_task):
    ways = {}, {"freeze_encoder": True, "unfreeze": "top"}, {"freeze_encoder": True}
    tasks = [ready_task(seq_len=160, **way) for way in ways]
    whole, top, frozen = (task.flops_per_sample(task.build()) for task in tasks)
    assert whole > top > frozen > 0
    model = tasks[2].build()
    tasks[2].use_features({"train": RecordingMetadata(tasks[2], model, "train")})
    assert 0 < tasks[2].flops_per_sample(model) < frozen
    masked = ready_task(stage="encoder")
    assert masked.flops_per_sample(masked.build()) > 0


def test_recomputed_regions_give_the_same_gradients(ready_task, batch_of):
    gradients = {}
    for again in (False, True):
        task = ready_task(stage="encoder", dropout=0.3, recompute_regions=again)
        torch.manual_seed(0)
        model = task.build().train()
        torch.manual_seed(1)
        task.loss(model, batch_of(task)).sum.backward()
        gradients[again] = {name: p.grad for name, p in model.named_parameters()}
        buffers = dict(model.named_buffers())
        gradients[again] |= {name: buffers[name].clone() for name in buffers}
    for name, gradient in gradients[False].items():
        assert torch.equal(gradient, gradients[True][name]), name


def test_cached_features_give_the_losses_and_metrics_of_the_eeg(ready_task, batch_of):
    task = ready_task(freeze_encoder=True, seq_len=160)
    torch.manual_seed(0)
    model = task.build().train()
    found = {}
    for is_cached in (False, True):
        if is_cached:
            task.use_features({s: RecordingMetadata(task, model, s) for s in ("train", "val")})
        train, val = batch_of(task), batch_of(task, split="val")
        assert ("eeg" in train) != is_cached and ("compared" in val) != is_cached
        loss = task.loss(model, train).sum
        found[is_cached] = [loss.item(), *task.metric().update(model, val).tolist()]
    assert (
        len(task.data("val").features.requested) >= 6
    )  # EEG, noise and the EEG of another sentence
    # An input alone, and together with others: the same products, rounded otherwise.
    np.testing.assert_allclose(found[True], found[False], rtol=1e-5)


class RecordingMetadata:
    """The encoder outputs of an input, with the requested keys recorded."""

    def __init__(self, task, model, split):
        self.task, self.model, self.inputs = task, model, task.encoder_inputs(split)
        self.requested = set()

    def __getitem__(self, number):
        self.requested.add(number)
        with torch.no_grad():
            encoded = self.task.encode(self.model, self.inputs.batch([number]))
        return {name: tensor[0].numpy() for name, tensor in encoded.items()}


def test_the_key_of_cached_features_depends_on_data_and_preprocessing(ready_task):
    keys = []
    shorter = {"seq_len": 240}
    changes = ({}, shorter, shorter | {"windows": 1}, {"control": "noise"}, {"fraction": 0.5})
    for change in changes:
        task = ready_task(freeze_encoder=True, **change)
        keys += [task.encoder_inputs(split).made_from for split in ("train", "val")]
    assert len({repr(key) for key in keys}) == len(keys)


@pytest.mark.parametrize("samples", [480, 481])
def test_noise_has_only_the_spectrum_of_the_eeg(samples):
    rng = np.random.default_rng(0)
    eeg = np.cumsum(rng.standard_normal((samples, 6)), axis=0).astype(np.float32)
    noise = phase_randomised(eeg, rng)
    spectra = [np.abs(np.fft.rfft(x, axis=0)) for x in (eeg, noise)]
    np.testing.assert_allclose(spectra[1], spectra[0], rtol=1e-2, atol=1e-2)
    assert noise.dtype == np.float32
    correlations = [np.corrcoef(eeg[:, c] - eeg[:, c].mean(), noise[:, c])[0, 1] for c in range(6)]
    assert np.abs(correlations).max() < 0.9 and not np.allclose(eeg, noise, atol=0.1)
