from math import inf

import numpy as np
import pytest

from gearshift.models.abr.responses import ResponseRow
from tests.models.tasks import maker

HEAD = ":RUN-3\tLEVEL SWEEP\t\r:FREQ: 16.00\tREP RATE (/sec): 40\tSAMPLE (µsec): 10\t\r"


@pytest.fixture(scope="session")
def make_task():
    """A task that is not set up yet."""
    return maker("abr", 0.2, path="embedded:few-patients")


@pytest.fixture
def rows():
    """Responses of made-up patients, two each."""

    def make(patients=6, **known):
        rng = np.random.default_rng(0)
        return [
            ResponseRow(f"patient {p}", f"line {p}", rng.standard_normal(200, np.float32), known)
            for p in range(patients)
            for _ in range(2)
        ]

    return make


@pytest.fixture
def people(tmp_path):
    """Writes a table of people: (patient, level in dB, class, signal)."""

    def write(rows, name="people.csv"):
        lines = [",".join(["patient_id", "intensity", "hear_loss", *map(str, range(1, 201))])]
        for *facts, signal in rows:
            lines.append(",".join([*map(str, facts), *(f"{value:.4f}" for value in signal)]))
        path = tmp_path / name
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def series(tmp_path):
    """Writes a level series like the EPL test suite, with its line ends and encoding."""

    def write(name="ABR-1-1", levels=(20, 40, 60), samples=1000, head=HEAD, silent=None, seed=0):
        data = np.random.default_rng(seed).standard_normal((samples, len(levels)))
        if silent is not None:
            data[:, silent] = 0
        level_list = "".join(f"{level:g};" for level in levels)
        rows = ["\t".join(f"{value: .6f}" for value in row) for row in data]
        path = tmp_path / name
        text = f"{head}:LEVELS:{level_list}\t\r:DATA\r" + "\r\n".join(rows) + "\r\n\r"
        path.write_bytes(text.encode("iso-8859-1"))
        return path

    return write


@pytest.fixture
def analyzed():
    """Writes the marks of a rater beside a series: {level: latency of P5, if `count` is 5}."""

    def write(series, peaks, threshold=35.0, rater="", count=5):
        value = {None: "None", inf: "inf"}.get(threshold, threshold)
        heads = ["Level", "1msec Avg", "1msec StDev"]
        heads += [
            f"{p}{n} {w}"
            for n in range(1, count + 1)
            for p in "PN"
            for w in ("Latency", "Amplitude")
        ]
        lines = [f"Threshold (dB SPL): {value}", "Frequency (kHz): 16.00", "Filter: none"]
        lines += ["NOTE: Negative latencies indicate no peak", "\t".join(heads)]
        for level, latency in peaks.items():
            cells = ["0.1"] * len(heads)
            cells[0] = f"{level}"
            if count == 5:
                cells[heads.index("P5 Latency")] = f"{latency}"
                cells[heads.index("P5 Amplitude")] = "0.7"
            lines.append("\t".join(cells))
        path = series.with_name(f"{series.name}-16.00kHz-{rater}analyzed.txt")
        path.write_text("\n".join(lines) + "\n", encoding="iso-8859-1")
        return path

    return write
