from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.abr.responses import ResponseRow
from models.abr.task import AbrTask
from tests.models.tasks import maker

HEAD = ":RUN-3\tLEVEL SWEEP\t\r:FREQ: 16.00\tREP RATE (/sec): 40\tSAMPLE (µsec): 10\t\r"


@pytest.fixture(scope="session")
def make_task() -> Callable[..., AbrTask]:
    """A task that is not set up yet."""
    return maker("abr", 0.2, path="embedded:few-patients")


@pytest.fixture
def rows() -> Callable[..., list[ResponseRow]]:
    """Responses of made-up patients, two each."""

    def make(patients: int = 6, **known: Any) -> list[ResponseRow]:
        rng = np.random.default_rng(0)
        return [
            ResponseRow(f"patient {p}", f"line {p}", rng.standard_normal(200, np.float32), **known)
            for p in range(patients)
            for _ in range(2)
        ]

    return make


@pytest.fixture
def people(tmp_path) -> Callable[..., Path]:
    """Writes a table of people: (patient, level in dB, class, signal)."""

    def write(rows, name: str = "people.csv") -> Path:
        lines = [",".join(["patient_id", "intensity", "hear_loss", *map(str, range(1, 201))])]
        for *facts, signal in rows:
            lines.append(",".join([*map(str, facts), *(f"{value:.4f}" for value in signal)]))
        path = tmp_path / name
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def series(tmp_path) -> Callable[..., Path]:
    """Writes a level series like the EPL test suite, with its line ends and encoding."""

    def write(
        name: str = "ABR-1-1",
        levels: tuple[float, ...] = (20, 40, 60),
        samples: int = 1000,
        head: str = HEAD,
        silent: int | None = None,
        seed: int = 0,
    ) -> Path:
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
def analyzed() -> Callable[..., Path]:
    """Writes the marks of a rater beside a series: {level: latency of P5, if `count` is 5}."""

    def write(
        series: Path,
        peaks: dict[float, float],
        threshold: float | None = 35.0,
        rater: str = "",
        count: int = 5,
    ) -> Path:
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
