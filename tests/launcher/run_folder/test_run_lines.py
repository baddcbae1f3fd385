"""Growing files are read line by line, also after a run went back."""

import json

from launcher.run_folder.records import GrowingFile


def append(path, *numbers, end="\n"):
    with path.open("a") as file:
        file.write("".join(json.dumps({"n": number}) + end for number in numbers))


def numbers(file):
    return [line["n"] for line in file.new_lines()]


def test_each_complete_line_is_returned_once(tmp_path):
    path = tmp_path / "lines.jsonl"
    file = GrowingFile(path)
    assert numbers(file) == []
    append(path, 1, 2)
    append(path, 3, end="")
    assert numbers(file) == [1, 2]
    append(path, end="")
    path.open("a").write("\n")
    append(path, 4)
    assert numbers(file) == [3, 4]
    assert numbers(file) == []


def test_lines_are_returned_again_from_the_first_that_changed(tmp_path):
    path = tmp_path / "lines.jsonl"
    file = GrowingFile(path)
    append(path, 1, 2, 3, 4)
    assert numbers(file) == [1, 2, 3, 4]
    path.write_text("")
    append(path, 1, 2, 5)  # cut and written on
    assert numbers(file) == [5]
    path.write_text("")
    append(path, 1, 3, 4, 5)  # longer than before
    assert numbers(file) == [3, 4, 5]
    other = tmp_path / "other"
    append(other, 1, 7, 8)
    other.replace(path)
    assert numbers(file) == [7, 8]
    append(path, 9)
    assert numbers(file) == [9]
