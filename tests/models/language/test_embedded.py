from collections import Counter

from gearshift.models.common.split import SplitRule, split_groups
from gearshift.models.language import commands, embedded
from gearshift.models.language.readers.corpus import from_records
from gearshift.models.language.readers.records import normalized


def test_python_text_is_deterministic_and_of_bounded_size():
    first, second = embedded.read_documents(), embedded.read_documents()
    assert first == second
    assert len({d.group for d in first}) == len(first) > 100
    assert 1_000_000 < sum(len(d.text) for d in first) < 4_000_000
    assert {d.group.split("/")[0] for d in first} == {"topics", "source"}


def test_commands_are_4000_distinct_requests_spread_evenly_over_intents():
    conversations = commands.read_conversations()
    assert len({normalized(c.before[0].text) for c in conversations}) == 4000
    assert list(Counter(c.label for c in conversations).values()) == [100] * 40
    assert conversations == commands.read_conversations()


def test_slots_of_validation_never_occur_in_training_and_all_intents_do():
    corpus = from_records("embedded:commands", commands.read_conversations())
    splits = split_groups(corpus.groups, SplitRule(0.1), "groups")
    exchanges = list(corpus.records())
    sides = {name: [e for e in exchanges if e.group in set(g)] for name, g in splits.items()}
    seen = {(e.label, e.text) for e in sides["train"]}
    assert not any((e.label, e.text) in seen for e in sides["val"] + sides["test"])
    assert {e.label for e in sides["train"]} == set(commands.INTENTS)
    assert not {e.before[0].text for e in sides["train"]} & {e.before[0].text for e in sides["val"]}
