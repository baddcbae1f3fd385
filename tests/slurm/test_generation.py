"""Which life of which job a process belongs to, and what keeps that from being known."""

import pytest

from slurm.environment import EnvironmentFault
from slurm.generation import Generation, parse, read_generation


def test_without_a_job_script_there_is_no_generation():
    assert read_generation({}) is None
    assert read_generation({"GEARSHIFT_JOB": "", "SLURM_JOB_ID": "7"}) is None


@pytest.mark.parametrize(
    "told, expected",
    [
        ({"GEARSHIFT_JOB": "12", "GEARSHIFT_GENERATION": "0"}, Generation("12", 0)),
        ({"GEARSHIFT_JOB": "12_3", "GEARSHIFT_GENERATION": "4"}, Generation("12_3", 4)),
        (
            {
                "GEARSHIFT_JOB": "12",
                "GEARSHIFT_GENERATION": "1",
                "TORCHELASTIC_RESTART_COUNT": "2",
            },
            Generation("12", 1, 2),
        ),
    ],
)
def test_job_number_and_restart_are_read_and_survive_as_text(told, expected):
    assert read_generation(told) == expected
    assert parse(str(expected)) == expected


@pytest.mark.parametrize(
    "told, what",
    [
        ({"GEARSHIFT_JOB": "12"}, "GEARSHIFT_JOB=12 without GEARSHIFT_GENERATION"),
        ({"GEARSHIFT_GENERATION": "1"}, "GEARSHIFT_GENERATION=1 without GEARSHIFT_JOB"),
        ({"GEARSHIFT_JOB": "../x", "GEARSHIFT_GENERATION": "1"}, "GEARSHIFT_JOB=../x"),
        ({"GEARSHIFT_JOB": "12", "GEARSHIFT_GENERATION": "-1"}, "GEARSHIFT_GENERATION=-1"),
        (
            {"GEARSHIFT_JOB": "1", "GEARSHIFT_GENERATION": "1", "TORCHELASTIC_RESTART_COUNT": "x"},
            "TORCHELASTIC_RESTART_COUNT=x",
        ),
    ],
)
def test_half_set_and_malformed_variables_are_named(told, what):
    with pytest.raises(EnvironmentFault) as fault:
        read_generation(told)
    assert fault.value.what == what


def test_a_later_life_follows_an_earlier_one_of_the_same_job_only():
    first, second, restarted = Generation("12", 0), Generation("12", 1), Generation("12", 0, 1)
    assert second.follows(first) and restarted.follows(first) and second.follows(restarted)
    assert not first.follows(second) and not first.follows(first)
    assert not Generation("13", 5).follows(first)


@pytest.mark.parametrize("text", ["", "12", "12.x", "4711@node1", "12.1.2.3"])
def test_other_text_is_no_generation(text):
    assert parse(text) is None
