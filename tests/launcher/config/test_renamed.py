from launcher.config.leaves import leaves
from launcher.config.renamed import RENAMED, as_today, tree_as_today


def test_what_was_renamed_is_gone_and_its_new_name_there():
    known = leaves("language")
    assert all(old not in known and new in known for old, (new, _) in RENAMED.items())


def test_a_setting_of_then_is_one_of_today():
    assert as_today("save.best", True) == ("save.keep_best", 1)
    assert as_today("save.best", False) == ("save.keep_best", 0)
    assert as_today("save.last", False) == ("save.last", False)


def test_a_tree_keeps_its_other_settings():
    tree = {"save": {"best": True, "last": False}, "mode": "fast"}
    assert tree_as_today(tree) == {"save": {"keep_best": 1, "last": False}, "mode": "fast"}
