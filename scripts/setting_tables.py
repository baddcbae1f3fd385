"""Tables of settings for pages about one section of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from launcher.base.diagnostics import plain
from launcher.config import presets
from launcher.config.provenance import flatten
from launcher.config.schema import SettingInfo, sections, setting_infos
from launcher.config.settings_file import node_value


def section(name: str) -> list[str]:
    """A row for each setting of the section `name`: default and description."""
    head = ["| setting | default | what it is |", "|---|---|---|"]
    return head + [
        f"| `{leaf.key}` | {plain(leaf.default)}{f' ({leaf.unit})' if _counts(leaf) else ''} "
        f"| {leaf.description} |"
        for leaf in setting_infos("language").values()
        if leaf.key.startswith(f"{name}.")
    ]


def _counts(leaf: SettingInfo) -> bool:
    """Whether the default is a number of something."""
    return leaf.unit is not None and isinstance(leaf.default, int | float)


def given(family: str) -> list[str]:
    """A row for each value that follows from a setting that the user gives."""
    head = ["| given | setting | default |", "|---|---|---|"]
    return head + [
        f"| `{name}` | `{key}` | {plain(node_value(node))} |"
        for name, block in presets.family(family).given.items()
        for key, node in flatten(block.settings, sections(family))
    ]


TABLES: dict[str, Callable[[], list[str]]] = {
    **{f"section {name}": partial(section, name) for name in ("continual",)},
    "given language": partial(given, "language"),
}
