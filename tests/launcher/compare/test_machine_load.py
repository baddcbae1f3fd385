"""Load by other programs, and when it makes times unreliable."""

from launcher.compare.runner import Load, Watch, load_warnings


def test_the_load_is_known_on_any_machine():
    load = Watch().load()
    assert load.cores >= 1 and load.others >= 0


def test_times_are_reliable_where_the_cores_were_free():
    assert not Load(others=0.1, cores=2).is_doubtful(2)
    assert Load(others=0.5, cores=2).is_doubtful(2)
    assert not Load(others=30.0, cores=64).is_doubtful(2)
    assert Load(others=63.0, cores=64).is_doubtful(2)


def test_a_busy_machine_gives_a_warning():
    loads = [Load(0.0, 2), Load(1.5, 2), Load(1.7, 2)]
    assert list(load_warnings(5.0, loads, 2)) == [
        "the machine was busy before the first run: load average 5.0 on 2 cores",
        "other programs used 1.5 to 1.7 of 2 cores during 2 of 3 runs: times and ratios are "
        "unreliable",
    ]
    assert list(load_warnings(0.2, loads[:1], 2)) == []
