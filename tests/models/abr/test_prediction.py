import csv
import io

import numpy as np
import pytest
import torch
from PIL import Image

from gearshift.models.abr.config import CLASS_NAMES
from gearshift.models.abr.dataset import scaled_facts, scaled_signal
from gearshift.models.abr.embedded import SHARES, simulate
from gearshift.models.abr.readers.table import POINT_NAMES
from tests.models import tasks


@pytest.fixture(scope="module")
def patients():
    return simulate(160, SHARES["balanced"])


def write_table(path, responses, index, **changed):
    """Responses as a table without labels; `changed` replaces cells of each row by column."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, ["patient_id", "age", "intensity", "rate", "fmp", *POINT_NAMES, *changed]
        )
        writer.writeheader()
        for row in index:
            facts = dict(
                zip(("age", "intensity", "rate", "fmp"), responses.static[row], strict=True)
            )
            signal = dict(zip(POINT_NAMES, responses.signal[row], strict=True))
            patient = responses.patient[row].removeprefix("patient ")
            writer.writerow({"patient_id": patient, **facts, **signal} | changed)
    return path


@pytest.fixture
def few(patients, tmp_path):
    """A table of the first two patients, and the indices of its rows."""
    chosen = list(dict.fromkeys(patients.patient.tolist()))[:2]
    index = np.flatnonzero(np.isin(patients.patient, chosen))
    return write_table(tmp_path / "new.csv", patients, index), index


@pytest.fixture
def without_data(make_task, tmp_path):
    """A task built from a run folder whose data no longer exists, and its model."""

    def make(data="embedded:few-patients", **settings):
        return tasks.without_data(make_task, tmp_path / "run", data, **settings)

    return make


def cells(prediction):
    return list(csv.DictReader(io.StringIO(prediction.files[".csv"].decode())))


def test_a_table_without_labels_gives_those_of_each_response(without_data, few, ready_task):
    task, model = without_data()
    path, index = few
    found = list(task.predict(model, path))
    # The second way: the split of a task that has the data.
    full = ready_task()
    split = full.data("train")
    given = [dict(split.sample(0, None)) for _ in index]
    rms, stats = full.statistics.signal_rms, full.statistics
    for sample, row in zip(given, index, strict=True):
        static = full.records.static[row].astype(np.float64)
        sample["signal"] = full.records.signal[row][None] / np.float32(rms)
        static[3] = np.log(1 + static[3])  # Fmp
        sample["static"] = ((static - stats.facts_mean) / stats.facts_scale).astype(np.float32)
    batch = full.collate(given)
    with torch.no_grad():
        outputs = model(batch["signal"], batch["static"])

    rows = [row for prediction in found for row in cells(prediction)]
    assert len(found) == 2 and len(rows) == len(index)
    assert [p.name for p in found] == [
        p.replace(" ", "-") for p in dict.fromkeys(full.records.patient[index])
    ]
    for n, row in enumerate(rows):
        signal = [float(row[point]) for point in POINT_NAMES]
        assert signal == pytest.approx((outputs["signal"][n, 0] * rms).tolist(), rel=1e-3, abs=1e-5)
        assert row["hear_loss"] == CLASS_NAMES[outputs["class"][n].argmax()]
        share = float(outputs["class"][n].softmax(-1).max())
        assert float(row["hear_loss_probability"]) == pytest.approx(share, rel=1e-4)
        exists = float(outputs["exists"][n].sigmoid())
        assert float(row["wave_v_probability"]) == pytest.approx(exists, rel=1e-4)
        if exists >= 0.5:
            latency = float(outputs["latency"][n])
            assert float(row["v_latency (ms)"]) == pytest.approx(latency, rel=1e-4)
        else:
            assert row["v_latency (ms)"] == row["v_amplitude (µV)"] == ""
        threshold = float(outputs["threshold"][n])
        assert float(row["threshold (dB)"]) == pytest.approx(threshold, rel=1e-4)
        assert float(row["intensity"]) == full.records.static[index[n], 1]
    assert Image.open(io.BytesIO(found[0].files[".png"])).format == "PNG"
    line = found[0].text.split("\n")[1]
    assert f"intensity {rows[0]['intensity']}, " in line and rows[0]["hear_loss"] in line


def test_a_level_series_of_animals_has_one_table(without_data, series, analyzed, tmp_path):
    for number in range(6):
        path = series(f"ABR-{number}-1", seed=number)
        analyzed(path, {60.0: 5.0 + number / 10})
    data = tmp_path / "animals"
    data.mkdir()
    for path in tmp_path.glob("ABR-*"):
        path.rename(data / path.name)
    task, model = without_data(data)
    path = series("ABR-9-1", silent=0)
    path.with_name(f"{path.name}-16.00kHz-anna-analyzed.txt").write_text("broken")  # not read
    found = list(task.predict(model, path))
    assert [p.name for p in found] == ["ABR-9-1", "notes"]
    rows = cells(found[0])
    assert [row["intensity"] for row in rows] == ["40", "60"]
    assert "hear_loss" not in rows[0] and rows[0]["threshold (dB)"]
    assert found[1].text == "left out: silent_levels 1"


def test_a_stage_without_a_decoder_writes_features(without_data, few, patients, ready_task):
    task, model = without_data(stage="encoder")
    path, index = few
    found = list(task.predict(model, path))
    full = ready_task(path="embedded:few-patients", stage="encoder")
    seen = []
    model.bottleneck.register_forward_hook(lambda _, __, out: seen.append(out))
    signal = scaled_signal(patients.signal[index], full.statistics)
    facts = scaled_facts(patients.static[index], full.statistics)
    with torch.no_grad():
        model(signal, facts)
    files = [np.load(io.BytesIO(p.files[".npz"])) for p in found]
    assert len(files) == 2 and sum(len(file["item"]) for file in files) == len(index)
    features = np.concatenate([file["features"] for file in files])
    np.testing.assert_allclose(features, seen[0], atol=1e-4)
    means = np.concatenate([file["mean"] for file in files])
    np.testing.assert_allclose(means, seen[0].mean(1), atol=1e-4)
    levels = np.concatenate([file["intensity"] for file in files])
    np.testing.assert_allclose(levels, patients.static[index, 1], atol=1e-4)


def test_the_onnx_model_takes_inputs_in_their_units(without_data, patients):
    task, model = without_data()
    static = patients.static[:3].copy()
    static[1, 0] = np.nan
    with torch.no_grad():
        given = (
            scaled_signal(patients.signal[:3], task.statistics),
            scaled_facts(static, task.statistics),
        )
        expected = model(*given)
        expected["reconstruction"] = expected.pop("signal") * task.statistics.signal_rms
        whole, inputs = task.onnx_model(model)
        found = whole(torch.from_numpy(patients.signal[:3, None].copy()), torch.from_numpy(static))
    assert [value.shape[1:] for value in inputs.values()] == [(1, 200), (4,)]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
