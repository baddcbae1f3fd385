from io import BytesIO

import pytest
from PIL import Image

from models.base import HasPictures
from models.language.preview import GIVEN, LEARNT, runs


def colours(picture):
    image = Image.open(BytesIO(picture.png))
    image.load()
    assert image.format == "PNG" and image.width > 600
    return {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in image.getcolors(1 << 20)}


@pytest.mark.parametrize("path", ["embedded:python", "embedded:commands"])
@pytest.mark.parametrize("control", ["real", "noise"])
def test_rows_and_lengths_are_drawn(make_task, path, control):
    task = make_task(path=path, control=control)
    assert isinstance(task, HasPictures)
    task.setup()
    rows, lengths = task.pictures()
    assert (rows.name, lengths.name) == ("rows", "lengths")
    assert {GIVEN, LEARNT} <= colours(rows) & colours(lengths)
    assert lengths.caption.endswith("documents" if path == "embedded:python" else "answers")


def test_a_prompt_is_grey_and_its_answer_green(tmp_path, make_task):
    path = tmp_path / "a.csv"
    rows = [f"ask {i},answer {i}\x07" for i in range(20)]
    path.write_text("input,output\n" + "\n".join(rows), encoding="utf-8")
    task = make_task(path=path)
    task.setup()
    row = task.data("train").row(0)
    (prompt, grey), (answer, green) = runs(task.dataset, row)
    assert (grey, green) == (GIVEN, LEARNT)
    number = prompt.split()[2]
    assert prompt == f"User: ask {number}\nAssistant: "
    assert answer == f"answer {number}\N{REPLACEMENT CHARACTER}"


def test_all_text_is_green_but_what_stands_first(tmp_path, make_task):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(f"line number {i}" for i in range(100)), encoding="utf-8")
    task = make_task(path=path, seq_len=16)
    task.setup()
    assert [colour for _, colour in runs(task.dataset, task.data("train").row(0))] == [
        GIVEN,
        LEARNT,
    ]


def test_one_length_for_all_is_drawn_too(tmp_path, make_task):
    path = tmp_path / "a.csv"
    path.write_text("input,output\n" + "\n".join(f"{i},same" for i in range(20)))
    task = make_task(path=path)
    task.setup()
    assert LEARNT in colours(task.pictures()[1])
