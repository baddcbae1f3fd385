"""A run and `data fetch` download their data; a dry run and ranks of other machines download nothing."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.download.fetch import fetch
from gearshift.launcher.run import run_error
from gearshift.launcher.run.execute import execute_run
from gearshift.launcher.run.prepare import prepare_run
from gearshift.slurm.environment import RankEnvironment
from tests.launcher.download.server import BODY, Response
from tests.waiting import until


def arguments(*files):
    options = {"download.fetch": ("--download-data", "true")}
    return CliArgs("language:tiny", sets=[f"download.files=[{', '.join(files)}]"], options=options)


def begun(*files, retries=1):
    """The report of a run that stops after its download; and what it reported."""
    reports = []

    ready = prepare_run(arguments(*files).with_sets([f"download.retries={retries}"]), None)
    ranks = Mock(return_value=run_error.of_error(SettingsError([]), 0))
    return execute_run(ready, False, reports.append, ranks), reports


def test_a_run_downloads_its_data_first(server):
    ending, _ = begun(server.on("/data.jsonl"))
    assert ending.kind == "invalid input" and Path("downloads/data.jsonl").read_bytes() == BODY


def test_a_run_downloads_nothing_that_only_a_file_asks_for(server, here):
    url = server.on("/data.jsonl")
    (here / "mine.yaml").write_text(f"download: {{fetch: true, files: ['{url}']}}\n")
    (here / "downloads").mkdir()
    (here / "downloads" / "data.jsonl").write_bytes(BODY)
    ready = prepare_run(CliArgs("language:tiny", configs=[here / "mine.yaml"]), None)
    execute_run(ready, False, str, Mock(return_value=run_error.of_error(SettingsError([]), 0)))
    assert not server.requests and not (here / "downloads" / ".fetch").exists()


def test_a_failed_download_exits_with_its_code_and_leaves_no_run_folder(server, here):
    with pytest.raises(SettingsError):
        begun(server.on("/none.jsonl", Response(404)))
    ending, reports = begun(server.on("/data.jsonl", Response(503)), retries=0)
    assert (ending.exit_code, reports) == (1, [ending])
    assert ending.text.startswith("error: cannot download data.jsonl: the server responds 503 ")
    assert not (here / "runs").exists()


def test_a_signal_of_the_scheduler_ends_a_download(server):
    url = server.on("/data.jsonl", Response(length=1 << 20, keeps_open=True))
    part = Path("downloads/.fetch/data.jsonl.new/data.jsonl")

    def has_bytes():
        with suppress(FileNotFoundError):  # a new part replaces that of an earlier attempt
            return part.stat().st_size > 0

    def stop_after_first_bytes():
        until(has_bytes)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)

    stop = threading.Thread(target=stop_after_first_bytes, daemon=True)
    stop.start()
    ending, _ = begun(url)
    stop.join()
    assert ending.exit_code == 75 and "run again" in ending.text
    assert not part.exists()


def rank_environment(rank, machines):
    return RankEnvironment(
        rank, 2, rank if machines == 1 else 0, 2 // machines, 0, "h", 1, "torchrun"
    )


def test_of_ranks_on_one_machine_one_downloads_and_the_others_wait(server):
    settings = prepare_run(arguments(server.on("/data.jsonl")), None).resolved.settings.download
    with ThreadPoolExecutor() as pool:
        environments = [rank_environment(rank, 1) for rank in range(2)]
        list(pool.map(fetch, [settings] * 2, [True, False], environments))
    assert len(server.requests) == 1 and Path("downloads/data.jsonl").read_bytes() == BODY


def test_on_several_machines_the_file_must_exist(server):
    settings = prepare_run(arguments(server.on("/data.jsonl")), None).resolved.settings.download
    with pytest.raises(SettingsError):
        fetch(settings, False, rank_environment(0, 2))
    assert not server.requests and not Path("downloads").exists()
    fetch(settings)
    assert not fetch(settings, False, rank_environment(0, 2))[0].is_new


def test_data_fetch_prints_the_files(server, here, said):
    (here / "mine.yaml").write_text(f"download:\n  files: ['{server.on('/data.csv')}']\n")
    command = ("data", "fetch", "--config", "mine.yaml")
    assert said(*command, "--model", "language:tiny").splitlines()[-1] == "downloads/data.csv"
    assert sorted(path.name for path in here.iterdir()) == ["downloads", "mine.yaml"]
    [found] = said(*command, "--model", "language:tiny", "--json")
    assert not found["is_new"]
    [found] = said(*command, "--json", "--out", "there")
    assert (found["path"], found["size"], found["is_new"]) == ("there/data.csv", len(BODY), True)
