"""The number of threads of a rank."""

import pytest

from launcher.run import affinity
from launcher.run.affinity import threads


@pytest.mark.parametrize(
    ("requested", "cores", "ranks", "variable", "expected"),
    [
        (None, 16, 4, None, 4),
        (None, 2, 4, None, 1),
        (None, 7, 2, None, 3),
        (5, 16, 4, "8", 5),
        (None, 16, 4, "8", 8),
        # torchrun sets 1 unasked, which makes an optimizer on the CPU ten times slower.
        (None, 16, 4, "1", 4),
        (None, 16, 4, "many", 4),
    ],
)
def test_threads_are_the_requested_number_or_an_even_share(
    requested, cores, ranks, variable, expected
):
    environ = {} if variable is None else {"OMP_NUM_THREADS": variable}
    assert threads(requested, cores, ranks, environ) == expected


def test_waiting_threads_sleep_soon_unless_the_user_set_how_they_wait():
    environ: dict[str, str] = {}
    affinity.limit_spinning(environ)
    assert environ == {"GOMP_SPINCOUNT": "1000"}
    for variables in ({"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "active"}):
        environ = dict(variables)
        affinity.limit_spinning(environ)
        assert environ == variables
