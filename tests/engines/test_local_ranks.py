"""Ranks of one machine are connected where no other user can reach them."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from gearshift.engines.base import EngineError, PeersMissing
from gearshift.engines.environment import FOLDER, OWNER, RankInfo
from gearshift.engines.local_ranks import LocalRanks


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the process that starts the ranks, with a longer path than a socket may have."""
    folder = tmp_path / ("a-long-name-" * 10)
    folder.mkdir(mode=0o700)
    monkeypatch.setenv(FOLDER, str(folder))
    return folder


def connect(size, ranks=None, limit_s=60.0):
    """What each of `ranks`, by default all, gets: its connections, or its error."""

    def of_rank(rank):
        try:
            return LocalRanks(RankInfo(rank, size, rank, size), limit_s)
        except (EngineError, PeersMissing) as error:
            return error

    ranks = range(size) if ranks is None else ranks
    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(of_rank, ranks))


@pytest.fixture
def three(folder):
    ranks = connect(3)
    yield ranks
    for rank in ranks:
        rank.close()


def test_each_rank_gets_the_numbers_of_all_others(three):
    for number, rank in enumerate(three):
        rank.send(1, [number, 2**40])
    for number, rank in enumerate(three):
        others = [other for other in range(3) if other != number]
        assert rank.receive(1, 60.0, others) == [[other, 2**40] for other in others]
    assert len({rank.secret for rank in three}) == 1


def test_nothing_listens_once_all_are_connected(three, folder):
    assert not list(folder.iterdir())


def test_what_an_abandoned_exchange_left_does_not_count_later(three):
    first, second, _ = three
    second.send(1, [1])
    second.send(2, [3])
    assert first.receive(2, 60.0, [1]) == [[3]]


def test_a_rank_that_closes_is_lost_for_those_that_wait_send_or_look(three):
    first, second, third = three
    third.close()
    for act in (
        first.check,
        lambda: first.receive(1, None, [2]),
        lambda: second.send(1, [1]),
    ):
        with pytest.raises(PeersMissing, match="lost rank 2"):
            act()


def test_a_rank_that_does_not_answer_is_named(three):
    first, *_ = three
    with pytest.raises(TimeoutError, match=r"timed out waiting .* for rank [12]"):
        first.receive(1, 0.01)


def test_missing_ranks_are_named_on_all(folder):
    for error in connect(4, ranks=[0, 2], limit_s=0.5):
        assert isinstance(error, PeersMissing)
        assert "local ranks 1, 3 of 4" in str(error)


def test_ranks_without_the_first_one_end(folder):
    (error,) = connect(2, ranks=[1], limit_s=0.1)
    assert isinstance(error, PeersMissing)


def test_a_folder_that_others_can_enter_is_refused(folder):
    folder.chmod(0o755)
    for error in connect(2):
        assert isinstance(error, EngineError) and str(folder) in str(error)


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_folder_is_refused(folder, tmp_path, kind):
    folder.rmdir()
    if kind == "link":
        (tmp_path / "of a stranger").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "of a stranger")
    else:
        folder.touch(mode=0o700)
    for error in connect(2):
        assert isinstance(error, EngineError) and str(folder) in str(error)


@pytest.fixture
def torchrun(tmp_path, monkeypatch):
    """The variables of torchrun, from which ranks derive their folder."""
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_ranks_of_torchrun_meet_in_a_folder_that_ends_with_them(torchrun):
    ranks = connect(2)
    folder = ranks[0].folder
    assert folder.parent == torchrun and folder.stat().st_mode & 0o777 == 0o700
    (error, _) = connect(2, limit_s=0.5)  # another run of the same name
    assert isinstance(error, EngineError) and "MASTER_PORT" in str(error)
    for rank in ranks:
        rank.close()
    assert not folder.exists()


def test_ranks_meet_where_a_killed_run_left_its_socket(torchrun):
    ranks = connect(2)
    for rank in ranks:
        rank.close()
    folder = ranks[0].folder
    folder.mkdir(mode=0o700)
    for name in ("0", "1", OWNER):
        (folder / name).touch()
    for rank in connect(2):
        rank.close()


def test_ranks_of_one_machine_need_something_that_tells_them_apart(torchrun, monkeypatch):
    monkeypatch.delenv("MASTER_PORT")
    for error in connect(2):
        assert isinstance(error, EngineError) and "MASTER_PORT" in str(error)
