"""A run begins when its data is there; a dry run and another machine's rank fetch nothing."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.config.provenance import CliArgs
from launcher.download import before_training
from launcher.run import prepare as start
from launcher.run import start_plan
from slurm.environment import RankEnvironment
from tests.launcher.download.server import BODY, Answer


def words(*files):
    options = {"download.fetch": ("--download-data", "true")}
    return CliArgs("language:tiny", sets=[f"download.files=[{', '.join(files)}]"], options=options)


def begun(*files):
    """How a run ends that has nothing to do but to see its data; and what it told."""
    told = []

    def work(job):
        raise SettingsError([])

    ready = start.prepare(words(*files), None, [])
    finished = start.carry_out(ready, False, told.append, load_work=lambda: work)
    return finished.report, told


def test_a_run_begins_when_its_data_is_there(server):
    ending, _ = begun(server.on("/data.jsonl"))
    assert ending.kind == "words" and Path("downloads/data.jsonl").read_bytes() == BODY


def test_what_will_not_come_ends_the_start_and_leaves_no_run(server, here):
    with pytest.raises(SettingsError):
        begun(server.on("/data.jsonl", Answer(404)))
    assert not (here / "runs").exists()


def test_a_server_that_fails_is_exit_code_1(server, here):
    url = server.on("/data.jsonl", Answer(503, headers={"Retry-After": "9999"}))
    ending, told = begun(url)
    assert (ending.exit_code, told) == (1, [ending])
    assert ending.text.startswith("error: data.jsonl was not fetched: the server answers 503 ")
    assert not (here / "runs").exists()


def test_a_schedulers_signal_keeps_what_has_come(server):
    url = server.on("/data.jsonl", Answer(length=1 << 20, headers={"ETag": '"x"'}, holds=True))
    part = Path("downloads/.fetch/data.jsonl.part")

    def stop_once_something_came():
        while not (part.exists() and part.stat().st_size):
            server.gone.wait(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)

    stop = threading.Thread(target=stop_once_something_came, daemon=True)
    stop.start()
    ending, _ = begun(url)
    stop.join()
    assert ending.exit_code == 75 and "run me again" in ending.text
    assert part.stat().st_size > 0


def test_a_dry_run_shows_what_would_be_fetched_and_fetches_nothing(server, here):
    url = server.on("/data.jsonl")
    ready = start.prepare(words(url), None, [])
    assert f"fetch    {url} as downloads/data.jsonl\n" in start_plan.text(ready.plan)
    one = {"url": url, "path": "downloads/data.jsonl", "is_there": False}
    assert start_plan.plan_json(ready.plan)["fetch"] == [one]
    assert server.asked == [] and list(here.iterdir()) == []


def place(rank, machines):
    return RankEnvironment(
        rank, 2, rank if machines == 1 else 0, 2 // machines, 0, "h", 1, "torchrun"
    )


def test_of_ranks_on_one_machine_one_fetches_and_the_others_wait(server, capfd):
    settings = start.prepare(words(server.on("/data.jsonl")), None, []).resolved.settings
    ranks = [
        threading.Thread(
            target=before_training.bring, args=(settings, place(rank, 1), True, rank == 0)
        )
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert len(server.asked) == 1 and Path("downloads/data.jsonl").read_bytes() == BODY
    assert capfd.readouterr().out.count(": fetching ") == 1


def test_ranks_on_several_machines_want_their_data_to_be_there(server):
    settings = start.prepare(words(server.on("/data.jsonl")), None, []).resolved.settings
    with pytest.raises(SettingsError) as wrong:
        before_training.bring(settings, place(0, 2), True, True)
    assert "data fetch  with the same settings before" in str(wrong.value)
    before_training.bring(settings, None, False, True)
    before_training.bring(settings, place(1, 2), True, False)
    assert len(server.asked) == 1
