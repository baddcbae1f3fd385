"""Names that every system takes."""

import pytest

from launcher.download.names import fault, member_fault, safe


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("data.zip", "data.zip"),
        ('a/b\\c:"d"?.zip', "a-b-c-d-.zip"),
        ("..", ""),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("x" * 300 + ".tar.gz", "x" * 193 + ".tar.gz"),
        ("データ.zip", "データ.zip"),
    ],
)
def test_the_end_of_a_url_becomes_a_name(name, made):
    assert safe(name) == made


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "a\\b", "..", ".a", "-a", "a.", "a ", "a:b", "NUL", "com1.txt", "\x07", "x" * 201],
)
def test_a_name_that_some_system_does_not_take_is_refused(name):
    assert fault(name) is not None


@pytest.mark.parametrize("name", ["a", "a b.tar.gz", "データ", "a-b_c.1"])
def test_a_name_that_every_system_takes(name):
    assert fault(name) is None


def test_what_windows_alone_minds_is_refused_there_alone():
    for name in ("12:30.csv", "aux.c", "in/nul"):
        assert member_fault(name, is_windows=False) is None
        assert member_fault(name, is_windows=True) is not None
    assert member_fault("a/b.csv", is_windows=True) is None
