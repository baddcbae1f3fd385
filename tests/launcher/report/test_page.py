"""Facts as a reader sees them."""

from launcher.report.page import fact_rows, fact_text


def test_facts_are_readable_lines():
    facts = {
        "groups": {"train": 12345, "val": 2},
        "rate_hz": 0.1,
        "left_out": ["a", "b"],
        "x": None,
    }
    assert fact_rows(facts) == [
        ("groups", "train 12,345, val 2"),
        ("rate hz", "0.1"),
        ("left out", "a; b"),
        ("x", "none"),
    ]
    assert fact_text({"is": True, "not": False}) == "is yes, not no"
    assert fact_text({"train": {"a": 1, "b": {}}, "val": 2}) == "train (a 1, b none), val 2"
