"""Every number that an original states is promised and measured, or says why not."""

from __future__ import annotations

from gearshift.launcher.config import presets
from scripts import mode_tables
from scripts.stated import STATED, Stated
from tests.ds_configs.tables import SHIPPED

HOMES = "event_seg lite, language resource-efficient, abr fast, abr ultra-fast, doc_translation conservative"
"""The family that a mode was made for; of benchmark, made for abr, no number is stated."""


def test_a_statement_is_in_the_table_and_is_promised_or_has_a_reason():
    text = "\n".join(mode_tables.stated())
    for one in STATED:
        assert bool(one.promises) != bool(one.why), one
        assert not one.promises or set(one.promises) & set(mode_tables.promises_of(one)), one
        assert one.text in text


def test_each_mode_of_an_original_has_statements():
    stated = {(one.model.partition(":")[0], one.mode) for one in STATED}
    assert {*HOMES.split(", ")} <= {f"{family} {mode}" for family, mode in stated}
    assert {family for family, mode in stated if mode == "staged"} == {"eeg_text"}
    assert {family for family, _ in stated} == set(SHIPPED)
    assert {mode for _, mode in stated} <= set(presets.modes())


def test_lite_fits_into_one_gibibyte():
    lite = Stated("event_seg", "lite", "1 GB of GPU memory", ["device_peak_bytes"])
    assert mode_tables.promises_of(lite)["device_peak_bytes"]["at_most"] == 2**30
