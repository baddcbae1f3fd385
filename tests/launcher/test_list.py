"""`list`: the catalogs, with a description and the availability of each entry."""

import sys

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.config import presets

PARAMETERS = {
    "event_seg": {"tiny": 17_218, "lite": 260_866, "lite-1M": 1_080_258, "full": 4_310_914},
    "language": {
        "tiny": 124_224,
        "small": 887_936,
        "lite": 4_889_856,
        "full": 25_838_080,
        "124M": 123_587_328,
        "350M": 359_842_816,
        "1.3B": 1_317_373_952,
    },
    "abr": {"tiny": 44_769, "lite": 820_449, "full": 46_720_259},
    "doc_translation": {"tiny": 338_877, "full": 208_941_977},
    "eeg_text": {"tiny": 316_248, "lite": 145_653_184, "full": 352_138_112},
}
"""By family and size, from their specification; eeg_text with bridge and decoder."""


def test_every_size_is_listed_with_its_exact_parameters(said):
    found = {
        family["name"]: {size["name"]: size["parameters"] for size in family["sizes"]}
        for family in said("list", "models", "--json")
    }
    assert found == PARAMETERS
    text = said("list", "models")
    for family, sizes in PARAMETERS.items():
        for size, count in sizes.items():
            assert f"{family}:{size} " in text
            assert f"{count:,} parameters" in text


def test_every_mode_and_engine_is_listed_and_all_without_a_word(said):
    rows = {row["name"]: row for row in said("list", "modes", "--json")}
    assert set(rows) == set(presets.modes())
    assert rows["lite"]["sentence"] == presets.mode("lite").sentence
    assert rows["lite"]["promise"]["peak_memory"]["at_most"] == 0.25
    assert presets.mode("lite").sentence in said("list", "modes")
    rows = {row["name"]: row for row in said("list", "engines", "--json")}
    assert list(rows) == [*ENGINES, "auto"]
    assert rows["zero2"]["needs"] == ["deepspeed"]
    assert (rows["local"]["runs_here"], rows["local"]["why_not"]) == (True, None)
    kinds = ("models", "modes", "engines", "recipes")
    assert said("list") == "\n".join(f"{kind}\n{said('list', kind)}" for kind in kinds)
    found = said("list", "--json")
    assert {kind: said("list", kind, "--json") for kind in found} == found
    assert tuple(found) == kinds
    assert [row["name"] for row in found["recipes"]] == list(presets.recipes())


def test_an_engine_with_a_missing_package_is_marked(said, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "fairscale", raising=False)
    rows = {row["name"]: row for row in said("list", "engines", "--json")}
    assert rows["oss"]["runs_here"] is False and "fairscale" in rows["oss"]["why_not"]
    assert "cannot run here: " in said("list", "engines")
