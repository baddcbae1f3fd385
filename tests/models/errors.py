"""The error that wrong data gives."""

import pytest

from gearshift.models.base import DataError


def error_of(call, *args, **options):
    """The DataError of a call, which must fail with one."""
    with pytest.raises(DataError) as error:
        call(*args, **options)
    return error.value
