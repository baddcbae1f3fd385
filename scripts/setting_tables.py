"""Tables of settings for pages about one section of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from launcher.base.diagnostics import plain
from launcher.config.schema import SettingInfo, setting_infos


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


TABLES: dict[str, Callable[[], list[str]]] = {
    f"section {name}": partial(section, name) for name in ("continual",)
}
