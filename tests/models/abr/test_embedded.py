import numpy as np
import pytest

from gearshift.models.abr.embedded import SEED, SHARES, simulate

NORMAL, NEUROPATHY, SENSORINEURAL, TOTAL, CONDUCTIVE = range(5)


@pytest.fixture(scope="module")
def dataset():
    patients = simulate(300, SHARES["balanced"], seed=1)
    columns = {"signal": patients.signal, "static": patients.static, "target": patients.target}
    return {**columns, **patients.labels}


def of(dataset, kind, low=-999, high=999):
    level = dataset["static"][:, 1]
    return (dataset["target"] == kind) & (level >= low) & (level <= high)


def test_the_wave_is_in_the_signal_where_the_label_says(dataset):
    clear = np.flatnonzero(of(dataset, NORMAL, 70) & (dataset["amplitude"] > 0.3))
    peaks = dataset["signal"][clear].argmax(1) * 0.05
    assert np.abs(peaks - dataset["latency"][clear]).mean() < 0.25


def test_each_class_has_its_characteristic_response(dataset):
    signal, level = dataset["signal"], dataset["static"][:, 1]
    late = of(dataset, CONDUCTIVE, 80, 80) & (dataset["exists"] > 0)
    plain = of(dataset, NORMAL, 80, 80)
    steep = of(dataset, SENSORINEURAL, 80, 80) & (dataset["exists"] > 0)
    mean = {
        n: np.nanmean(dataset["latency"][m]) for n, m in (("c", late), ("n", plain), ("s", steep))
    }
    assert mean["c"] - mean["n"] > 0.8 and abs(mean["s"] - mean["n"]) < 0.15
    assert not dataset["exists"][of(dataset, TOTAL)].any()
    assert np.isnan(dataset["threshold"][of(dataset, TOTAL) | of(dataset, NEUROPATHY)]).all()
    early = slice(10, 60)
    silent = signal[of(dataset, TOTAL, 80)][:, early].std()
    assert signal[of(dataset, NEUROPATHY, 80)][:, early].std() > 2 * silent
    assert 0 < dataset["exists"][of(dataset, NEUROPATHY)].mean() < 0.2
    responds = np.isfinite(dataset["threshold"])
    np.testing.assert_array_equal(
        dataset["exists"][responds] > 0, level[responds] > dataset["threshold"][responds]
    )


def test_patients_have_the_specified_examinations():
    patients = 160
    first = simulate(patients, SHARES["clinical"])
    # Two ears, 6.5 levels and 1.5 rates on average.
    assert len(first) == pytest.approx(patients * 2 * 6.5 * 1.5, rel=0.05)
    exam = first.static[first.patient == first.patient[0]]
    assert 2 * 5 <= len(exam) <= 2 * 8 * 2 and len(set(exam[:, 0])) == 1
    assert len(set(first.patient)) == patients
    again, other = (simulate(patients, SHARES["clinical"], seed).signal for seed in (SEED, 1))
    np.testing.assert_array_equal(first.signal, again)
    assert not np.array_equal(first.signal[:100], other[:100])
