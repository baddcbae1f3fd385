import numpy as np
import pytest

from models.abr.embedded import patients
from models.abr.embedded.patients import SHARES, read_patients, simulate
from models.abr.responses import CLASS_NAMES

NORMAL, NEUROPATHY, SENSORINEURAL, TOTAL, CONDUCTIVE = range(5)


@pytest.fixture(scope="module")
def made():
    return simulate(300, SHARES["balanced"], seed=1)


def of(made, kind, low=-999, high=999):
    level = made["static"][:, 1]
    return (made["target"] == kind) & (level >= low) & (level <= high)


def test_the_same_seed_gives_the_same_arrays_and_another_others():
    first, again, other = (simulate(20, SHARES["balanced"], seed) for seed in (1, 1, 2))
    for name, column in first.items():
        np.testing.assert_array_equal(column, again[name])
    assert not np.array_equal(first["signal"][:100], other["signal"][:100])


def test_patients_ears_levels_and_rates_have_the_specified_counts():
    found = read_patients("embedded:patients", "balanced")
    assert len(set(found.patient)) == 600
    # Two ears, 6.5 levels and 1.5 rates on average.
    assert len(found) == pytest.approx(600 * 2 * 6.5 * 1.5, rel=0.03)
    exam = found.static[found.patient == found.patient[0]]
    assert 2 * 5 <= len(exam) <= 2 * 8 * 2 and len(set(exam[:, 0])) == 1


@pytest.mark.parametrize("shares", SHARES)
def test_classes_have_their_shares(shares):
    found = read_patients("embedded:patients", shares)
    _, first = np.unique(found.patient, return_index=True)
    counts = np.bincount(found.target[first], minlength=len(CLASS_NAMES))
    # Rounded to whole patients; what is left over is normal.
    np.testing.assert_allclose(counts, 600 * np.array(SHARES[shares]), atol=2)


def test_wave_v_of_normal_ears_has_the_expected_latency(made):
    at_80 = of(made, NORMAL, 80, 80) & (made["static"][:, 2] < 12)
    young = at_80 & (made["static"][:, 0] < 30)
    assert np.nanmean(made["latency"][young]) == pytest.approx(5.6, abs=0.05)
    at_40 = of(made, NORMAL, 40, 40) & (made["exists"] > 0)
    later = np.nanmean(made["latency"][at_40]) - np.nanmean(made["latency"][at_80])
    assert later == pytest.approx(4 * 0.35, abs=0.1)
    assert np.nanmean(made["amplitude"][at_80]) == pytest.approx(0.46, abs=0.04)


def test_the_wave_is_in_the_signal_where_the_label_says(made):
    clear = np.flatnonzero(of(made, NORMAL, 70) & (made["amplitude"] > 0.3))
    peaks = made["signal"][clear].argmax(1) * 0.05
    assert np.abs(peaks - made["latency"][clear]).mean() < 0.25


def test_each_class_has_its_characteristic_response(made):
    signal, level = made["signal"], made["static"][:, 1]
    late = of(made, CONDUCTIVE, 80, 80) & (made["exists"] > 0)
    plain = of(made, NORMAL, 80, 80)
    steep = of(made, SENSORINEURAL, 80, 80) & (made["exists"] > 0)
    mean = {n: np.nanmean(made["latency"][m]) for n, m in (("c", late), ("n", plain), ("s", steep))}
    assert mean["c"] - mean["n"] > 0.8 and abs(mean["s"] - mean["n"]) < 0.15
    assert not made["exists"][of(made, TOTAL)].any()
    assert np.isnan(made["threshold"][of(made, TOTAL) | of(made, NEUROPATHY)]).all()
    early = slice(10, 60)
    silent = signal[of(made, TOTAL, 80)][:, early].std()
    assert signal[of(made, NEUROPATHY, 80)][:, early].std() > 2 * silent
    assert 0 < made["exists"][of(made, NEUROPATHY)].mean() < 0.2
    responds = np.isfinite(made["threshold"])
    np.testing.assert_array_equal(
        made["exists"][responds] > 0, level[responds] > made["threshold"][responds]
    )


def test_noise_and_fmp_are_in_range(made):
    silent = of(made, TOTAL)
    rms = made["signal"][silent].std(1)
    assert 0.018 < np.median(rms) < 0.062
    assert np.median(made["static"][silent, 3]) == pytest.approx(1, abs=0.3)
    assert np.median(made["static"][of(made, NORMAL, 80), 3]) > 5


def test_a_cached_set_is_mapped_and_equal(tmp_path, monkeypatch):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path))
    first = read_patients("embedded:few-patients", "clinical")
    (path,) = tmp_path.iterdir()
    again = read_patients("embedded:few-patients", "clinical")
    assert path.name.startswith("abr-") and isinstance(again.signal, np.memmap)
    np.testing.assert_array_equal(first.signal, again.signal)
    assert set(patients.PATIENTS) == {"embedded:patients", "embedded:few-patients"}
