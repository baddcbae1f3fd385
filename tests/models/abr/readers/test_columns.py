import shlex
from pathlib import Path

import pytest

from models.abr.readers.table import NAMES, POINT_NAMES, find_columns
from models.base import DataError
from models.common.table import declared_columns
from tests.launcher.given import resolved

PATH = Path("a.csv")
NEEDED = ("patient_id", "intensity", "hear_loss")
ALLOWED = (
    "  allowed       patient_id, intensity, hear_loss, 1 … 200; and if known age, rate, fmp, "
    "v_latency, v_amplitude, threshold, polarity, rejected"
)


def find(*heads, declared=(), points=POINT_NAMES):
    return find_columns([*heads, *points], declared_columns(declared), PATH)


def error_of(*heads, **options):
    with pytest.raises(DataError) as error:
        find(*heads, **options)
    return error.value


def test_the_only_open_column_is_proposed_for_the_only_missing_fact():
    heads = [head for head in NEEDED if head != "hear_loss"]
    fix = error_of(*heads, "Diagnosis").fix
    assert fix.endswith("--set 'data.columns=[Diagnosis=hear_loss]'")


def test_every_known_name_is_found_in_other_spellings():
    spellings = (str.upper, lambda name: name.replace("_", " "), lambda name: f"{name} (unit)")
    for number, name in enumerate(name for names in NAMES.values() for name in names):
        (meaning,) = (meaning for meaning in NAMES if name in NAMES[meaning])
        others = [needed for needed in NEEDED if needed != meaning]
        spelling = spellings[number % 3](name)
        assert find(*others, spelling)[meaning] == len(others), spelling


def test_points_may_be_numbers_or_have_a_unit():
    columns = find(*NEEDED, points=[1.0, "2 (µV)", *range(3, 201)])
    assert [columns[name] for name in POINT_NAMES] == list(range(3, 203))


def test_a_missing_column_is_an_error_with_the_columns_found_and_the_option_to_type():
    assert str(error_of("Subject", "Stim level (dB)", "hear_loss")).splitlines() == [
        "the table has no column patient_id, intensity among: Subject, Stim level (dB), hear_loss",
        "  where         a.csv",
        ALLOWED,
        "  did you mean  Stim level (dB) for intensity",
        "  fix           say what a column means:  "
        "--set 'data.columns=[Stim level (dB)=intensity, NAME=patient_id]'",
    ]


@pytest.mark.parametrize("head", ["Stim-level: 1, 'left' ear", "Stim level [peak]"])
def test_the_option_of_the_error_reads_the_table(head):
    fix = error_of("patient_id", "hear_loss", head).fix.partition("means:  ")[2]
    assert find("patient_id", "hear_loss", head, declared=typed(fix))["intensity"] == 2


def typed(option):
    """data.columns after typing `option` in a shell."""
    assignment = shlex.split(option)[1]
    return resolved(assignment, model="abr:tiny").values["data.columns"].value
