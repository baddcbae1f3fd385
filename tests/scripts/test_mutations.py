"""The table of mutations fits the code: each text occurs once, and its tests exist."""

from scripts.mutations import MUTATIONS, ROOT


def test_each_text_occurs_exactly_once_in_its_file_and_its_tests_exist():
    assert len(MUTATIONS) == 237
    counts = {f"{m.file}: {m.old}": (ROOT / m.file).read_text().count(m.old) for m in MUTATIONS}
    assert {text: count for text, count in counts.items() if count != 1} == {}
    absent = []
    for mutation in MUTATIONS:
        file, _, name = mutation.test.partition("::")
        path = ROOT / "tests" / file
        if not path.is_file() or name.partition("[")[0] not in path.read_text():
            absent.append(mutation.test)
    assert absent == []
