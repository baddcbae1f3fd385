"""Changes that are made from a syntax tree: which there are, and that tests are asked."""

import ast
from pathlib import Path

import pytest

from scripts.mutations import PRODUCT, ROOT, first_failure, mirrored_tests, mutations

FUNCTION = '''
"""Text of the file."""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

def function(values: list[1], limit: int = 3) -> "tuple[1, 2]":
    """Text of the function."""
    {}

class Sample:
    def __repr__(self):
        return str(1 + 2)
'''
DEFAULT = "values: list[1], limit: int=3"


def changes_of(statement):
    """What `statement` may become, in a file of much that never changes; without the default 3."""
    source = FUNCTION.format(statement).encode()
    statements = set()
    for changes in mutations("file.py", source):
        for change in changes:
            function = ast.parse(change.mutated(source)).body[3]
            if ast.unparse(function.args) == DEFAULT:
                statements.add(ast.unparse(function.body[1]))
            else:
                assert (change.old, change.new) in (("3", "(4)"), ("3", "(2)"))
    return statements


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("return a < b", {"return a <= b", "return a >= b"}),
        ("return a in b", {"return a not in b"}),
        ("return a and b", {"return a or b", "return a", "return b"}),
        ("return a + b / c", {"return a - b / c", "return a + b * c"}),
        ("return not a", {"return a"}),
        ("return a if b else c", {"return a", "return c"}),
        ("return a[0]", {"return a[-1]", "return a[1]"}),
        ("return a[b:]", {"return a[:]"}),
        ("return min(a, key=b)", {"return max(a, key=b)", "return min(a)"}),
        ("return reversed(a)", {"return a"}),
        ("return [a for a in b if a]", {"return [a for a in b if True]"}),
        ("a.b = c", {"pass"}),
        ("a = b", set()),
        ("a(b)", {"pass"}),
        ("raise E(1 + 2)", {"pass"}),
        ("print(1 + 2)", set()),
        ("warn(a < b, c=d)", set()),
        ("a: Literal[1] = f'{1 + 2}'", set()),
        ("return a(b='text', c=f'{d}')", set()),
        ("assert a < b", set()),
    ],
)
def test_one_node_that_computes_changes_and_no_text_for_people(statement, expected):
    assert changes_of(statement) == expected


def test_a_condition_is_negated_and_dropped():
    changes = changes_of("if a: return b")
    tests = {ast.parse(change).body[0].test for change in changes}
    assert {ast.unparse(test) for test in tests} == {"True", "False", "not a"}


def test_each_change_of_the_product_is_a_program_of_its_own():
    for folder in PRODUCT[:2]:
        for file in Path(ROOT, folder).rglob("*.py"):
            source = file.read_bytes()
            tree = ast.dump(ast.parse(source))
            for changes in mutations(file.name, source)[::20]:
                assert ast.dump(ast.parse(changes[0].mutated(source))) != tree


def test_a_file_has_its_mirror_or_the_tests_of_its_folder():
    assert mirrored_tests("training/loop.py", ROOT) == ["tests/training/test_loop.py"]
    tests = mirrored_tests("launcher/commands/verify.py", ROOT)
    assert "tests/launcher/test_verify.py" in tests
    assert {Path(test).parent for test in tests} == {Path("tests/launcher")}


@pytest.mark.slow
def test_the_test_that_notices_a_change_is_named_and_a_hanging_one_counts(tmp_path):
    tests = tmp_path / "test_number.py"
    tests.write_text(
        "import time, number_of\n"
        "def test_it_is_positive():\n    assert number_of.VALUE > 0\n"
        "def test_it_ends():\n    time.sleep(600 * (number_of.VALUE - 1))\n"
    )
    product = tmp_path / "number_of.py"
    (tmp_path / "conftest.py").touch()
    product.write_text("VALUE = 1\n")
    assert first_failure([tests.name], tmp_path) is None
    product.write_text("VALUE = -22\n")
    assert first_failure([tests.name], tmp_path) == f"{tests.name}::test_it_is_positive"
    product.write_text("VALUE = 333\n")
    assert first_failure([tests.name], tmp_path, limit_s=5) == "a test hangs"
