"""The command `submit`, with an sbatch that records its calls."""

import os
import sys
from functools import partial

import pytest

from tests.launcher.given import resolved
from tests.launcher.hub import COMMIT, serving_hub
from tests.launcher.runs import trained
from tests.launcher.stages.conftest import saved_stages

TINY = ("--model", "language:tiny", "--max-steps", "20")


@pytest.fixture
def submit(said):
    return partial(said, "submit", *TINY)


def test_a_run_is_tested_then_written_to_a_folder_then_submitted(programs, here, submit):
    out = submit("--out", "a run", "--time", "10", "--lr", "1e-3", "--", "--mail-type=END")
    test, queued = programs.calls("sbatch")
    script = here / "a run" / "slurm" / "job.sbatch"
    assert test["args"] == ["--test-only", "--mail-type=END"]
    assert queued["args"] == ["--parsable", "--mail-type=END", str(script)]
    assert test["text"] == script.read_text()
    assert (script.parent / "log").is_dir()
    shown = dict(line.split(None, 1) for line in out.splitlines())
    assert list(shown) == ["job", "folder", "log", "follow", "cancel", "resume"]
    assert shown["log"] == str(here / "a run" / "slurm" / "log" / "41.out")
    assert shown["resume"] == f"python -m launcher submit --resume '{here / 'a run'}'"


def test_the_script_contains_the_resources_and_the_arguments(programs, here, submit):
    submit("--fast", "--nodes", "2", "--time=10", "--out=run", "--lr", "1e-3")
    text = (here / "run" / "slurm" / "job.sbatch").read_text()
    header = [line[8:] for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert header == [
        *("--job-name=gearshift-fast", "--nodes=2", "--time=10"),
        *(f"--output={here}/run/slurm/log/%j.out", "--open-mode=append", "--requeue"),
        *("--signal=B:USR1@300", f"--export=ALL,GEARSHIFT_PYTHON={sys.executable}"),
        f"--chdir={here}",
    ]
    assert text.splitlines()[-1] == (
        f'gearshift_job --model language:tiny --max-steps 20 --fast --lr 1e-3 --out={here}/run "$@"'
    )


def test_a_rejected_job_leaves_no_files(programs, here, submit):
    programs.add("sbatch", (1, "", "sbatch: error: invalid partition specified: nope\n"))
    assert submit("--partition", "nope", code=2).endswith("\n  where         sbatch\n")
    assert os.listdir(here) == []
    (here.parent / "bin" / "calls.jsonl").unlink()
    programs.add("sbatch", (0, "", ""), (1, "", "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"))
    (here / "run").mkdir()
    submit("--out", "run", code=2)
    assert os.listdir(here) == ["run"] and os.listdir(here / "run") == []


def test_a_batch_that_no_world_size_of_the_job_divides_is_an_error(programs, here, submit):
    for nodes in ("3", "2-3", "1-4"):
        words = ("--nodes", nodes, "--set", "train.global_batch=8", "--json")
        [error] = submit(*words, code=2)["diagnostics"]
        assert error["key"] == "train.global_batch", nodes
    assert programs.calls("sbatch") == [] and os.listdir(here) == []


@pytest.mark.parametrize(
    ("args", "key"),
    [
        (("--nodes", "2", "--config", "four.yaml"), "engine.nproc"),
        (("--ranks-per-node", "2", "--set", "engine.nproc=4"), "engine.nproc"),
        (("--ranks-per-node", "4", "--set", "engine.nproc=4"), None),
    ],
)
def test_a_number_of_processes_that_the_job_does_not_have_is_an_error(here, args, key, submit):
    (here / "four.yaml").write_text("engine.nproc: 4\n")
    diagnostics = submit("--dry-run", "--json", *args, code=2 if key else 0).get("diagnostics", [])
    assert [diagnostic["key"] for diagnostic in diagnostics] == [key] * bool(key)


def test_a_run_is_checked_with_the_requested_gpus_and_a_rank_has_the_requested_cpus(here, submit):
    submit("--dry-run", "--precision", "fp16", code=2)
    for gpu_args in (["--gpus-per-node", "a100:2"], ["--", "--gres", "gpu:2"]):
        assert "engine ddp, nodes 1, ranks per node 2" in submit(
            "--dry-run", "--precision", "fp16", *gpu_args
        )

    def header(*args):
        return [
            line.strip() for line in submit("--dry-run", *args).splitlines() if "SBATCH" in line
        ]

    assert "#SBATCH --cpus-per-task=4" in header("--ranks-per-node", "4")
    assert "#SBATCH --cpus-per-task=8" in header("--ranks-per-node", "4", "--cpus-per-task", "2")
    assert not any("cpus" in line for line in header("--gpus-per-node", "4"))
    assert any("GEARSHIFT_LAUNCH=torchrun" in line for line in header("--torchrun"))


def test_all_errors_of_options_and_settings_are_printed_together(
    here, tmp_path, monkeypatch, submit
):
    monkeypatch.setenv("PATH", str(tmp_path))
    args = ("--nodes", "two", "--lr", "fast", "-pdebug", "--mail-type=END", "--", "-N2", "--wrap=x")
    errors = [line for line in submit(*args, code=2).splitlines() if line.startswith("error: ")]
    names = ("sbatch", "--nodes", "-N2", "--wrap", "-pdebug", "--mail-type", "optim.lr")
    assert [name in error for name, error in zip(names, errors, strict=True)] == [True] * 7


def test_the_site_file_sets_the_header_in_a_subshell_and_its_failure_is_an_error(
    programs, here, monkeypatch, submit
):
    (here / "site.sh").write_text(
        "SBATCH_ACCOUNT=ours\nSBATCH_TIMELIMIT=30\nGEARSHIFT_RANKS_PER_NODE=2\nexport MORE=1\n"
    )
    monkeypatch.setenv("GEARSHIFT_SITE", "site.sh")
    monkeypatch.setenv("SBATCH_PARTITION", "mine")
    monkeypatch.setenv("SLURM_NTASKS", "77")
    [job] = submit("--json", "--out", "run", "--time", "60", "--nodes", "2")["jobs"]
    assert (job["id"], job["world_size"]) == ("41", 4)
    assert job["log"] == f"{here}/run/slurm/log/41.out"
    text = (here / "run" / "slurm" / "job.sbatch").read_text()
    for line in ("--account=ours", "--partition=mine", "--time=60", "--cpus-per-task=2"):
        assert f"#SBATCH {line}\n" in text
    assert "GEARSHIFT_PYTHON" not in text  # the site file sets the Python of a job
    environment = programs.calls("sbatch")[1]["environment"]
    names = {"SBATCH_PARTITION", "SBATCH_ACCOUNT", "SLURM_NTASKS", "MORE"}
    assert not names & set(environment)
    (here / "site.sh").write_text("echo no such project >&2; exit 3\n")
    assert "no such project" in submit(code=2)
    assert len(programs.calls("sbatch")) == 2


def test_a_resumed_run_uses_its_folder(programs, here, submit, said):
    trained(here / "runs" / "mine", resolved(model="language:tiny"), 100, 200)
    before = set(os.listdir(here / "runs" / "mine"))
    output = said("submit", "--model", "language:tiny", "--resume", "auto")
    assert output.startswith("resuming runs/mine from step 200")
    text = (here / "runs" / "mine" / "slurm" / "job.sbatch").read_text()
    assert text.splitlines()[-1].endswith(f'--resume={here}/runs/mine --out={here}/runs/mine "$@"')
    submit("--out", "runs/mine", code=2)
    programs.add("sbatch", (1, "", "no\n"))
    said("submit", "--resume", "runs/mine", code=2)
    assert set(os.listdir(here / "runs" / "mine")) == {*before, "slurm"}


def test_a_folder_with_an_sbatch_pattern_is_an_error(programs, here, submit):
    submit("--out", "100%j", code=2)
    submit("--out", "100%", "--dry-run")
    assert os.listdir(here) == [] and programs.calls("sbatch") == []


STAGED = ("--model", "eeg_text:tiny", "--mode", "staged")


def test_stages_are_submitted_one_by_one(programs, here, said):
    [error] = said("submit", *STAGED, "--json", code=2)["diagnostics"]
    assert "encoder, text" in error["message"] and "staged.sbatch" in error["allowed"]
    (here / "all").mkdir()
    saved_stages(here / "all", "encoder", "text")
    [error] = said("submit", "--resume", "all", "--json", code=2)["diagnostics"]
    assert "all/1-encoder" in error["message"] and error["where"] == "--resume all"
    said("submit", *STAGED, "--stage", "encoder", "--out", "one")
    text = (here / "one" / "slurm" / "job.sbatch").read_text()
    assert f"--stage encoder --out={here}/one" in text.splitlines()[-1]


def test_an_array_of_one_run_is_an_error(programs, here, monkeypatch, submit):
    [error] = submit("--json", "--", "--array=1-8", code=2)["diagnostics"]
    assert error["value"] == "--array=1-8" and "sweep.sbatch" in error["allowed"]
    monkeypatch.setenv("SBATCH_ARRAY", "1-8")
    [error] = submit("--json", code=2)["diagnostics"]
    assert error["where"] == "SBATCH_ARRAY"
    assert programs.calls("sbatch") == [] and os.listdir(here) == []


def test_a_model_of_the_hub_is_downloaded_and_the_job_names_its_commit(
    programs, here, tmp_path, monkeypatch, said
):
    (tmp_path / "model").mkdir()
    for name, text in (("config.json", '{"model_type": "llama"}'), ("model.safetensors", "w")):
        (tmp_path / "model" / name).write_text(text)
    with serving_hub(tmp_path / "home", monkeypatch) as server:
        server.add("org/tiny", tmp_path / "model")
        options = ("--set", "model.pretrained=hf:org/tiny", "--max-steps", "20", "--out", "run")
        said("submit", *options, "--dry-run")
        assert server.sent == {"config.json"}
        said("submit", *options)
        assert server.sent == {"config.json", "model.safetensors"}
        (here / "mine.yaml").write_text("model.pretrained: hf:org/tiny\n")
        programs.add("sbatch", (0, "", ""), (0, "52\n", ""))
        said("submit", "--config", "mine.yaml", "--out", "other")
    for run in ("run", "other"):
        job = (here / run / "slurm" / "job.sbatch").read_text()
        assert f"--set=model.pretrained=hf:org/tiny@{COMMIT} --out=" in job
