"""The command `submit`, with an sbatch that records its calls."""

import json
import os
import re
import shutil
import sys
from types import SimpleNamespace

import pytest

from launcher.__main__ import main
from tests.launcher.given import resolved
from tests.launcher.hub import COMMIT, serving_hub
from tests.launcher.runs import trained

TINY = ("--model", "language:tiny", "--max-steps", "20")


def submit(*args):
    return main(["submit", *TINY, *args])


def test_a_run_is_tested_then_written_to_a_folder_then_submitted(programs, here, capsys):
    assert submit("--out", "a run", "--time", "10", "--lr", "1e-3", "--", "--mail-type=END") == 0
    test, queued = programs.calls("sbatch")
    script = here / "a run" / "slurm" / "job.sbatch"
    assert test["args"] == ["--test-only", "--mail-type=END"]
    assert queued["args"] == ["--parsable", "--mail-type=END", str(script)]
    assert test["text"] == script.read_text()
    assert (script.parent / "log").is_dir()
    log = here / "a run" / "slurm" / "log" / "41.out"
    assert capsys.readouterr().out.splitlines() == [
        "job      41  language:tiny, mode default, engine local on 1 node × 1 process",
        f"folder   {here / 'a run'}",
        f"log      {log}",
        f"follow   tail -F '{log}'",
        "cancel   scancel 41",
        f"resume   python -m launcher submit --resume '{here / 'a run'}'",
    ]


def test_the_script_contains_the_resources_and_the_arguments(programs, here):
    assert submit("--fast", "--nodes", "2", "--time=10", "--out=run", "--lr", "1e-3") == 0
    text = (here / "run" / "slurm" / "job.sbatch").read_text()
    header = [line[8:] for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert header == [
        *("--job-name=gearshift-fast", "--nodes=2", "--time=10"),
        *(f"--output={here}/run/slurm/log/%j.out", "--open-mode=append", "--requeue"),
        *("--signal=B:USR1@300", f"--export=ALL,GEARSHIFT_PYTHON={sys.executable}"),
        f"--chdir={here}",
    ]
    assert text.splitlines()[-1] == (
        f'gearshift_job --mode fast --model language:tiny --max-steps 20 --lr 1e-3 --out={here}/run "$@"'
    )


def test_a_rejected_job_leaves_no_files(programs, here, capsys):
    programs.add("sbatch", (1, "", "sbatch: error: invalid partition specified: nope\n"))
    assert submit("--partition", "nope") == 2
    assert os.listdir(here) == []
    assert capsys.readouterr().err.splitlines() == [
        "error: Slurm rejected the job: invalid partition specified: nope",
        "  where         sbatch",
    ]
    (here.parent / "bin" / "calls.jsonl").unlink()
    programs.add("sbatch", (0, "", ""), (1, "", "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"))
    (here / "run").mkdir()
    assert submit("--out", "run") == 2
    assert os.listdir(here) == ["run"] and os.listdir(here / "run") == []


def test_a_batch_that_no_world_size_of_the_job_divides_is_an_error(programs, here, capsys):
    for nodes in ("3", "2-3", "1-4"):
        assert submit("--nodes", nodes, "--set", "train.global_batch=8") == 2
        output = capsys.readouterr().err
        assert "a global batch of 8 cannot be split among 3 processes" in output, nodes
    assert programs.calls("sbatch") == [] and os.listdir(here) == []


@pytest.mark.parametrize(
    ("args", "key"),
    [
        (("--nodes", "1-2", "--engine", "local"), "engine.name"),
        (("--nodes", "2", "--config", "four.yaml"), "engine.nproc"),
        (("--ranks-per-node", "2", "--set", "engine.nproc=4"), "engine.nproc"),
        (("--ranks-per-node", "4", "--set", "engine.nproc=4"), None),
        (("--torchrun", "--engine", "local"), None),
    ],
)
def test_an_engine_or_a_number_of_processes_that_the_job_does_not_have_is_an_error(here, capsys, args, key):
    (here / "four.yaml").write_text("engine.nproc: 4\n")
    assert submit("--dry-run", "--json", *args) == (2 if key else 0)
    diagnostics = json.loads(capsys.readouterr().out).get("diagnostics", [])
    assert [diagnostic["key"] for diagnostic in diagnostics] == [key] * bool(key)


def test_a_run_is_checked_with_the_requested_gpus_and_a_rank_has_the_requested_cpus(here, capsys):
    assert submit("--dry-run", "--precision", "fp16") == 2
    assert "precision 'fp16' is impossible here: no GPU" in capsys.readouterr().err
    for gpu_args in (["--gpus-per-node", "a100:2"], ["--", "--gres", "gpu:2"]):
        assert submit("--dry-run", "--precision", "fp16", *gpu_args) == 0
        assert "ddp on 1 node × 2 processes" in capsys.readouterr().out

    def header(*args):
        assert submit("--dry-run", *args) == 0
        return [line.strip() for line in capsys.readouterr().out.splitlines() if "SBATCH" in line]

    assert "#SBATCH --cpus-per-task=4" in header("--ranks-per-node", "4")
    assert "#SBATCH --cpus-per-task=8" in header("--ranks-per-node", "4", "--cpus-per-task", "2")
    assert not any("cpus" in line for line in header("--gpus-per-node", "4"))
    assert any("GEARSHIFT_LAUNCH=torchrun" in line for line in header("--torchrun"))


def test_all_errors_of_options_and_settings_are_printed_together(here, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    args = ("--nodes", "two", "--lr", "fast", "-pdebug", "--mail-type=END", "--", "-N2", "--wrap=x")
    assert submit(*args) == 2
    assert [line for line in capsys.readouterr().err.splitlines() if line[0] != " "] == [
        "error: sbatch is not on PATH: this machine cannot submit jobs",
        "error: invalid --nodes 'two'",
        "error: -N2 must precede -- : submit reads it",
        "error: submit sets --wrap=x itself",
        "error: unknown option '-pdebug'",
        "error: option '--mail-type' belongs to sbatch, not to submit",
        "error: optim.lr 'fast' should be a valid number",
    ]


def test_the_site_file_sets_the_header_in_a_subshell_and_its_failure_is_an_error(
    programs, here, monkeypatch, capsys
):
    (here / "site.sh").write_text(
        "SBATCH_ACCOUNT=ours\nSBATCH_TIMELIMIT=30\nGEARSHIFT_RANKS_PER_NODE=2\nexport MORE=1\n"
    )
    monkeypatch.setenv("GEARSHIFT_SITE", "site.sh")
    monkeypatch.setenv("SBATCH_PARTITION", "mine")
    monkeypatch.setenv("SLURM_NTASKS", "77")
    assert submit("--json", "--out", "run", "--time", "60", "--nodes", "2") == 0
    [job] = json.loads(capsys.readouterr().out)["jobs"]
    [run] = job["runs"]
    assert (job["id"], run["folder"], run["world_size"]) == ("41", f"{here}/run", 4)
    assert run["log"] == f"{here}/run/slurm/log/41.out"
    text = (here / "run" / "slurm" / "job.sbatch").read_text()
    for line in ("--account=ours", "--partition=mine", "--time=60", "--cpus-per-task=2"):
        assert f"#SBATCH {line}\n" in text
    assert "GEARSHIFT_PYTHON" not in text  # the site file sets the Python of a job
    environment = programs.calls("sbatch")[1]["environment"]
    names = {"SBATCH_PARTITION", "SBATCH_ACCOUNT", "SLURM_NTASKS", "MORE"}
    assert not names & set(environment)
    (here / "site.sh").write_text("echo no such project >&2; exit 3\n")
    assert submit() == 2
    output = capsys.readouterr().err.splitlines()
    failed = f"error: site file {here}/site.sh failed: it exited the shell"
    assert output[:2] == [failed, "no such project"]
    assert len(programs.calls("sbatch")) == 2


def test_a_resumed_run_uses_its_folder(programs, here, capsys):
    trained(here / "runs" / "mine", resolved(model="language:tiny"), 100, 200)
    before = set(os.listdir(here / "runs" / "mine"))
    assert main(["submit", "--model", "language:tiny", "--resume", "auto"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("resuming runs/mine from step 200")
    text = (here / "runs" / "mine" / "slurm" / "job.sbatch").read_text()
    assert text.splitlines()[-1].endswith(f'--resume={here}/runs/mine --out={here}/runs/mine "$@"')
    assert submit("--out", "runs/mine") == 2
    assert "contains another run" in capsys.readouterr().err
    programs.add("sbatch", (1, "", "no\n"))
    assert main(["submit", "--resume", "runs/mine"]) == 2
    assert set(os.listdir(here / "runs" / "mine")) == {*before, "slurm"}


def test_a_folder_with_an_sbatch_pattern_or_without_room_is_an_error(programs, here, monkeypatch, capsys):
    assert submit("--out", "100%j") == 2
    assert "contains a pattern of sbatch, such as %j" in capsys.readouterr().err
    assert submit("--out", "100%", "--dry-run") == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**10))
    assert submit("--out", "mine") == 2
    needed = rf"error: cannot write to {here}/mine: it needs [0-9.]+ MiB, and its disk has 1.0 KiB free"
    assert re.search(needed, capsys.readouterr().err)
    assert os.listdir(here) == [] and programs.calls("sbatch") == []


STAGED = ("submit", "--model", "eeg_text:tiny", "--mode", "staged", "--out", "all")


def test_each_stage_is_a_job_that_depends_on_the_one_before(programs, here, capsys):
    programs.add("sbatch", (0, "", ""), (0, "", ""), (0, "51\n", ""), (0, "52\n", ""))
    assert main(list(STAGED)) == 0
    first, second = (call["args"] for call in programs.calls("sbatch")[2:])
    assert first == ["--parsable", f"{here}/all/1-encoder/slurm/job.sbatch"]
    assert second[1:3] == ["--dependency=afterok:51", "--kill-on-invalid-dep=yes"]
    text = (here / "all" / "2-text" / "slurm" / "job.sbatch").read_text()
    assert text.splitlines()[-1] == (f'gearshift_job --resume={here}/all/2-text --out={here}/all/2-text "$@"')
    assert (here / "all" / "1-encoder" / "slurm" / "next").read_text() == "52\n"
    assert "cancel   scancel 52 51" in capsys.readouterr().out


def test_submitted_stages_are_cancelled_if_a_later_one_is_rejected(programs, here):
    programs.add("sbatch", (0, "", ""), (0, "", ""), (0, "51\n", ""), (1, "", "limit\n"))
    assert main(list(STAGED)) == 2
    assert programs.calls("scancel")[0]["args"] == ["51"]
    assert os.listdir(here) == []


def test_a_model_of_the_hub_is_downloaded_and_the_job_names_its_commit(programs, here, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    for name, text in (("config.json", '{"model_type": "llama"}'), ("model.safetensors", "w")):
        (tmp_path / "model" / name).write_text(text)
    with serving_hub(tmp_path / "home", monkeypatch) as server:
        server.add("org/tiny", tmp_path / "model")
        options = ("--set", "model.pretrained=hf:org/tiny", "--max-steps", "20", "--out", "run")
        assert main(["submit", *options, "--dry-run"]) == 0
        assert server.sent == {"config.json"}
        assert main(["submit", *options]) == 0
        assert server.sent == {"config.json", "model.safetensors"}
        (here / "mine.yaml").write_text("model.pretrained: hf:org/tiny\n")
        programs.add("sbatch", (0, "", ""), (0, "52\n", ""))
        assert main(["submit", "--config", "mine.yaml", "--out", "other"]) == 0
    job = (here / "run" / "slurm" / "job.sbatch").read_text()
    assert f"--set=model.pretrained=hf:org/tiny@{COMMIT} --out=" in job
    job = (here / "other" / "slurm" / "job.sbatch").read_text()
    assert f"--set=model.pretrained=hf:org/tiny@{COMMIT} --out=" in job
