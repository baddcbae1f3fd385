import json

import numpy as np
import pytest
import torch

from gearshift.models.abr.loss import TERMS
from gearshift.models.abr.network import ENCODER
from gearshift.models.base import Goal

SPLITS = ("train", "val", "test")


@pytest.fixture
def task(ready_task):
    return ready_task()


def one_step(task, model, batch):
    weight, loss = task.num_units(batch), task.loss(model, batch)
    sum(total / max(1, weight[term]) for term, total in loss.sum.items()).backward()
    return loss


def test_inputs_are_standardized_by_the_training_patients_alone(task, batch_of):
    train = batch_of(task, len(task.data("train")))
    assert train["signal"].square().mean().item() == pytest.approx(1, rel=1e-4)
    torch.testing.assert_close(train["static"].mean(0), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(train["static"].std(0), torch.ones(4), rtol=1e-3, atol=0)
    val = batch_of(task, len(task.data("val")), "val")
    assert abs(val["signal"].square().mean().item() - 1) > 1e-3
    # One factor for all: what is twice as high stays twice as high.
    responses, index = task.records, task.data("train").numbers
    ratio = train["signal"][:, 0].numpy() / responses.signal[index]
    np.testing.assert_allclose(ratio[np.isfinite(ratio)], 1 / task.statistics.signal_rms, 1e-4)


def test_the_curriculum_delays_terms_and_every_parameter_keeps_a_gradient(task, batch_of):
    task.set_progress(0.0, 100.0)
    model, batch = task.build(), batch_of(task, 8)
    loss = one_step(task, model, batch)
    assert {t for t, total in loss.sum.items() if total.item() == 0} == set(TERMS) - {"signal"}
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    task.set_progress(8.0, 100.0)
    found = task.loss(model, batch).sum
    assert found["class"].item() > 0 == found["threshold"].item()


def patients(**known):
    """One response of each of twenty patients; `known` replaces their class."""
    rng = np.random.default_rng(0)
    return [(n, 80, known.get("label", n % 2), rng.standard_normal(200)) for n in range(20)]


def test_terms_without_labels_are_not_trained_and_not_reported(people, ready_task, batch_of):
    task = ready_task(path=people(patients()))
    batch = batch_of(task, 4)
    assert (
        tuple(task.loss(task.build(), batch).sum)
        == tuple(task.num_units(batch))
        == ("signal", "class")
    )
    metric = task.metric()
    names = set(metric.result(metric.update(task.build(), batch)))
    assert {"val_signal_mse", "val_macro_f1"} < names
    assert not any(word in name for name in names for word in ("latency", "threshold", "auroc"))
    facts = task.facts()
    assert facts["not_trained"] == ["exists", "latency", "amplitude", "threshold"]
    assert facts["classes"] == {"normal": 6, "neuropathy": 6}
    task = ready_task(path=people(patients(label="")))  # without classes
    assert task.goal == Goal("val_signal_mse", "min") and "classes" not in task.facts()


def marked_folder(tmp_path, series, analyzed, counts):
    """Level series whose raters mark as many peaks as `counts`: 5 include wave V, 1 does not."""
    for number, count in enumerate(counts):
        name = f"ABR-{number}-1"
        analyzed(series(name, seed=number), {20: 5.6, 40: 5.3, 60: -1}, count=count)
    return str(tmp_path)


def test_files_marked_for_other_peaks_are_masked(tmp_path, ready_task, series, analyzed):
    task = ready_task(path=marked_folder(tmp_path, series, analyzed, [1, 5] * 4))
    samples, patient = task.data("train"), task.records.patient
    model = task.build().eval()
    rows = {0: [], 1: []}
    for index in range(len(samples)):
        number = int(patient[samples.numbers[index]].split("-")[1])
        rows[number % 2].append(samples.sample(index, None))
    without, having = task.collate(rows[0]), task.collate(rows[1])
    assert not without["latency_mask"].any() and not without["exists_mask"].any()
    assert having["latency_mask"].any() and having["exists_mask"].all()
    peaks = ("exists", "latency", "amplitude")
    alone, both = task.loss(model, having).sum, task.loss(model, task.collate(rows[0] + rows[1]))
    for term in peaks:
        assert task.num_units(without)[term] == 0 == task.loss(model, without).sum[term].item()
        torch.testing.assert_close(both.sum[term], alone[term], rtol=1e-4, atol=1e-5)
    assert both.sum["signal"] > alone["signal"]


def test_the_only_recording_is_split_by_level_and_the_facts_name_it(ready_task, series):
    path = series(levels=tuple(range(10, 130, 10)))
    task = ready_task(path=str(path))
    facts = task.facts()
    assert facts["split"].startswith(
        "by level of one or two recordings, each training level 16 times"
    )
    assert facts["groups"] == {"train": 8, "val": 2, "test": 2}
    assert facts["samples"] == {"train": 128, "val": 2, "test": 2}
    levels = [set(task.records.static[task.data(name).numbers, 1]) for name in SPLITS]
    assert sum(map(len, levels)) == len(set.union(*levels)) == 12


def test_the_run_folder_gives_the_statistics_of_the_loaded_weights(tmp_path, make_task, ready_task):
    first, second = ready_task(tmp_path), make_task(tmp_path)
    path = tmp_path / "model_facts.json"
    trained = json.loads(path.read_text())
    saved = trained["statistics"] | {"signal_rms": 2.5}
    path.write_text(json.dumps(trained | {"statistics": saved}))
    second.setup()
    buffers = dict(second.build().named_buffers())
    assert second.statistics.signal_rms == buffers["signal_rms"].item() == 2.5
    assert buffers["facts_mean"].tolist() == pytest.approx(first.statistics.facts_mean)
    assert set(buffers) == set(saved)


@pytest.mark.parametrize("control", ["noise", "noise-signal"])
def test_a_noise_control_gives_each_response_the_input_of_another_patient(ready_task, control):
    plain, noise = ready_task(), ready_task(control=control)
    patient = plain.records.patient
    for name in SPLITS:
        split = noise.data(name)
        assert not (patient[split.given] == patient[split.numbers]).any()
        assert set(split.given) == set(split.numbers) == set(plain.data(name).numbers)
        real, noise_sample = (t.data(name).sample(3, None) for t in (plain, noise))
        same_static = (real["static"] == noise_sample["static"]).all()
        assert same_static == (control == "noise-signal")
        assert real["target"] == noise_sample["target"]
        assert (real["signal"] != noise_sample["signal"]).any()
    band = noise.facts()["control"]["val_macro_f1"]
    assert ("max" in band) == (control == "noise") and "control" not in plain.facts()


def test_stage_encoder_trains_the_encoder_by_all_terms(ready_task, batch_of):
    task = ready_task(stage="encoder")
    loss = one_step(task, model := task.build(), batch_of(task, 6))
    assert {*loss.sum} == {*ready_task().terms} and task.goal == Goal("val_macro_f1", "max")
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {*ENCODER}
    assert not any(module.training for module in model.decoder.modules())
