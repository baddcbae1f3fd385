from math import isnan

import numpy as np
import pytest

from gearshift.models.abr.config import Data
from gearshift.models.abr.readers import recordings
from gearshift.models.abr.readers.recordings import fmp
from gearshift.models.abr.responses import ResponseReading
from tests.models.abr.readers.edf import RATE, write_edf

EVERY = 40
"""Stimuli a second."""


def response(rate=RATE):
    """A wave at 5 ms, of 1 µV, in the middle of the band."""
    time = np.arange(int(0.02 * rate)) / rate
    return np.exp(-(((time - 0.005) / 0.0005) ** 2))


def second(number, noise=2.0, kind="click 80 dB", spike=()):
    """One second of a recording, with stimuli at its regular times."""
    rng = np.random.default_rng(number)
    signal = noise * rng.standard_normal(RATE) + 5 * np.sin(2 * np.pi * 10 * np.arange(RATE) / RATE)
    starts = np.arange(EVERY) * RATE // EVERY
    for start in starts:
        wave = response()[: RATE - start]
        signal[start : start + len(wave)] += wave
    for index in spike:
        signal[starts[index] + 20] += 400
    return signal, [(number + start / RATE, kind) for start in starts]


def read(path, sweeps=200, reject_uv=40.0, channel=None):
    reading = ResponseReading(Data(sweeps=sweeps, reject_uv=reject_uv, channel=channel))
    return list(recordings.read(path, path.name, reading)), reading


def test_sweeps_are_averaged_to_the_response_in_them(tmp_path):
    path = write_edf(tmp_path / "a.edf", (second(n) for n in range(11)))
    rows, reader = read(path)
    assert len(rows) == 2 and reader.bad_records.rows == []
    row = rows[0]
    assert (row.patient, row["level"]) == ("a.edf", 80)
    assert row["rate"] == pytest.approx(EVERY, rel=1e-3)
    # 2 µV of noise over 200 sweeps leave 0.14 µV; what is slow was filtered out.
    assert np.argmax(row.signal) * 0.05 == pytest.approx(5.0, abs=0.3)
    assert 0.5 < row.signal.max() < 1.2 and abs(row.signal[:50]).max() < 0.5
    assert row["fmp"] > 2 and isnan(row["age"])
    # 440 sweeps, less one or two that the end cuts, in two responses of 200.
    assert 30 <= reader.left_out["leftover_sweeps"] <= 40


def test_sweeps_with_artifacts_are_rejected_and_stimuli_averaged_apart(tmp_path):
    kinds = ["click 80 dB", "click 40 dB"]
    seconds = [second(n, spike=(3, 17), kind=kinds[n % 2]) for n in range(6)]
    rows, reader = read(write_edf(tmp_path / "a.edf", seconds), sweeps=100)
    assert reader.left_out["rejected_sweeps"] == 12 and sorted(row["level"] for row in rows) == [
        40,
        80,
    ]
    assert max(row.signal.max() for row in rows) < 1.5


def test_runs_of_a_subject_are_one_group_and_alternating_names_have_the_rate_of_all(tmp_path):
    def alternating(number):
        signal, events = second(number)
        kinds = ("click 80 dB", "click 40 dB")
        return signal, [(onset, kinds[n % 2]) for n, (onset, _) in enumerate(events)]

    rows = []
    for run in (1, 2):
        path = tmp_path / f"sub-01_run-{run}_eeg.edf"
        rows += read(write_edf(path, (alternating(n) for n in range(3))), sweeps=50)[0]
    assert len(rows) == 4 and {row.patient for row in rows} == {"sub-01"}
    assert {round(row["rate"]) for row in rows} == {EVERY}


@pytest.mark.parametrize(
    "how", [{"sweeps": 1000}, {"channel": "Cy"}, {"reject_uv": 1e-3}, {"silent": True}]
)
def test_a_recording_without_a_response_is_a_bad_record(tmp_path, how):
    seconds = ((np.zeros(RATE), []) if how.get("silent") else second(n) for n in range(2))
    rows, reader = read(
        write_edf(tmp_path / "a.edf", seconds), **{k: v for k, v in how.items() if k != "silent"}
    )
    assert rows == [] and len(reader.bad_records.rows) == 1


def test_an_eeglab_set_gives_the_same_rows_as_an_edf(tmp_path):
    from scipy.io import savemat

    seconds = [second(n) for n in range(6)]
    signal = np.concatenate([s for s, _ in seconds])
    events = [(onset, kind) for _, found in seconds for onset, kind in found]
    kinds = np.array(
        [(onset * RATE + 1, kind, 0) for onset, kind in events],
        dtype=[("latency", "O"), ("type", "O"), ("duration", "O")],
    )
    positions = np.array([("Cz",)], dtype=[("labels", "O")])
    eeg = {"data": signal[None], "srate": float(RATE), "nbchan": 1, "pnts": len(signal)}
    eeg |= {"trials": 1, "xmin": 0.0, "xmax": 6.0, "setname": "a", "chanlocs": positions}
    savemat(tmp_path / "a.set", {"EEG": eeg | {"event": kinds, "times": [], "icawinv": []}})
    (row,), reader = read(tmp_path / "a.set")
    (other,), _ = read(write_edf(tmp_path / "a.edf", seconds))
    assert reader.bad_records.rows == [] and row["level"] == 80
    np.testing.assert_allclose(row.signal, other.signal, atol=0.02)


def test_fmp_measures_the_noise_of_an_average():
    noise = np.random.default_rng(0).standard_normal((400, 201))
    audible = noise + 0.5 * np.sin(np.arange(201) / 8)
    silent, heard = fmp(noise), fmp(audible)
    assert silent == pytest.approx(1.0, abs=0.3)
    # A variance of 0.125 over one of 1/400.
    assert heard == pytest.approx(1 + 0.125 * 400, rel=0.15)
