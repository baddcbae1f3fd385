import pytest

from models.doc_translation.metric import steds, tree

PAGE = "# Title\n\nFirst.\n\n## Part\n\nSecond.\n\nThird."


def shape(node):
    return (node.kind[0], [shape(child) for child in node.children])


def test_paragraphs_hang_below_their_heading_and_headings_below_larger_ones():
    assert shape(tree(PAGE)) == (
        "r",
        [("h", [("p", []), ("h", [("p", []), ("p", [])])])],
    )


def test_a_heading_needs_no_blank_line_after_it():
    assert shape(tree("# A\ntext\nmore\n# B")) == ("r", [("h", [("p", [])]), ("h", [])])


@pytest.mark.parametrize(
    ("written", "score"),
    [
        (PAGE, 100),
        ("# Another title\n\nOther words.\n\n## Part\n\nHere.\n\nAnd there.", 100),
        (PAGE + "\n\nOne more.", 100 * (1 - 1 / 6)),
        ("# Title\n\nFirst.", 100 * (1 - 3 / 5)),
        ("", 0),
        ("#\n\nFirst.\n\n## Part\n\nSecond.\n\nThird.", 100 * (1 - 1 / 5)),
    ],
)
def test_steds_counts_inserted_removed_and_changed_nodes(written, score):
    assert steds(written, PAGE) == pytest.approx(score)


def test_it_is_the_same_both_ways_and_full_for_two_empty_texts():
    assert steds("# A\n\nb", PAGE) == pytest.approx(steds(PAGE, "# A\n\nb"))
    assert steds("", "\n") == 100
