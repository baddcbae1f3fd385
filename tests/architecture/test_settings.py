"""Every section of settings has a docstring, forbids unknown keys, and cannot be changed."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isclass
from typing import get_args

import pytest
from pydantic import BaseModel

from gearshift.launcher.config.schema import settings_class
from gearshift.models.catalog import FAMILIES


def sections(annotation: object) -> Iterator[type[BaseModel]]:
    """The classes of settings within an annotation."""
    for part in get_args(annotation):
        yield from sections(part)
    if isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from sections(field.annotation)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_section_is_closed(family):
    whole = settings_class(family)
    classes = set(sections(whole))
    configs = {
        cls: (cls.model_config.get("extra"), cls.model_config.get("frozen")) for cls in classes
    }
    assert len(classes) > 20
    assert {cls: c for cls, c in configs.items() if c != ("forbid", True)} == {}
    assert [cls for cls in classes - {whole} if not (cls.__doc__ or "").strip()] == []
