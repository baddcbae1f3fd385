"""What --model names: a family, a model of the hub or of a folder, or a run."""

import json

import pytest

from gearshift.launcher.config.schema import PRETRAINED
from tests.launcher.given import refused, resolved
from tests.launcher.hub import COMMIT, serving_hub

SETTINGS = {"model.family": "language", "model.size": "tiny", "model.vocabulary": 512}


def write_run(folder, **settings):
    """A run folder as far as its settings are read."""
    tree = {}
    for key, value in {**SETTINGS, **settings}.items():
        tree.setdefault("model", {})[key.partition(".")[2]] = value
    folder.mkdir(parents=True)
    (folder / "settings.yaml").write_text(json.dumps(tree))
    (folder / "origins.json").write_text("{}")
    return folder


@pytest.fixture
def model(here):
    """A folder of transformers, whose name could be one of the hub."""
    folder = here / "org" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def note(run):
    return next(iter(run.notes))


def test_a_folder_of_transformers_counts_before_the_hub_and_the_header_says_so(model):
    for name in ("org/tiny", "./org/tiny", str(model)):
        run = resolved(model=name)
        assert run.settings.model.family == "language"
        assert run.settings.model.pretrained == name
        assert run.values[PRETRAINED].origin.where == f"--model {name}"
        assert note(run).startswith(f"--model {name}: ") and f"{PRETRAINED}={name}" in note(run)


def test_a_name_of_the_hub_is_pinned_in_every_form(model, tmp_path, monkeypatch):
    file = tmp_path / "mine.yaml"
    file.write_text("model: {pretrained: org/other}\n")
    with serving_hub(tmp_path / "home", monkeypatch) as server:
        server.add("org/other", model)
        pinned = f"hf:org/other@{COMMIT}"
        for name in ("org/other", "hf:org/other", "org/other@main", pinned):
            run = resolved(model=name)
            assert run.settings.model.pretrained == pinned
            assert note(run).startswith(f"--model {name}: ")
        for run in (resolved(configs=[file]), resolved(f"{PRETRAINED}=org/other")):
            assert run.settings.model.pretrained == pinned
        server.refuse("org/othr", 404, "RepoNotFound")
        (error,) = refused(model="org/othr")
        assert (error.key, error.where) == (PRETRAINED, "--model org/othr")


def test_a_run_gives_its_model_and_its_weights(here):
    write_run(here / "runs" / "t1")
    (here / "runs" / "t1" / "checkpoints" / "step-00000002").mkdir(parents=True)
    for name in ("runs/t1", "runs/t1/checkpoints/step-00000002", "runs/t1/best"):
        (here / name).mkdir(exist_ok=True)
        run = resolved(model=name)
        section = run.settings.model
        assert (section.family, section.size, section.vocabulary) == ("language", "tiny", 512)
        assert section.start == name and note(run).startswith(f"--model {name}: ")
    section = resolved("model.vocabulary=null", model="runs/t1").settings.model
    assert section.vocabulary is None


def test_a_run_of_a_pretrained_model_names_it_too(here, model):
    write_run(here / "tuned", **{PRETRAINED: str(model), "model.lora.rank": None})
    section = resolved(model="tuned").settings.model
    assert (section.pretrained, section.start) == (str(model), "tuned")


@pytest.mark.parametrize("key", ["model.start", "model.encoder"])
def test_a_run_of_another_size_is_refused_before_anything_is_read(here, key):
    family = {"model.start": "language", "model.encoder": "abr"}[key]
    write_run(here / "t1", **{"model.family": family})
    for model in (f"{family}:small", f"{family}:lite", f"{family}:full"):
        if model.endswith("small") and family == "abr":
            continue
        (error,) = refused(f"{key}=t1", model=model)
        assert (error.key, error.where) == (key, f"--set {key}=t1")
        assert error.fix == f"--model {family}:tiny"
    assert resolved(f"{key}=t1", model=error.fix.split()[1])


def test_a_run_of_another_family_is_refused_with_its_own(here):
    write_run(here / "t1")
    (error,) = refused("model.start=t1", model="eeg_text:tiny")
    assert error.fix == "--model language:tiny"


def test_a_run_that_has_no_whole_model_names_what_it_has(here):
    write_run(here / "abr", **{"model.family": "abr"})
    (error,) = refused(model="abr/")
    assert error.where == "--model abr/"
    assert error.fix == "--model abr:tiny --set model.encoder=abr/"
    write_run(here / "task", **{"model.family": "my_task:Task"})
    (error,) = refused(model="task")
    assert error.fix is None and error.allowed


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("langauge", "--model language"),
        ("language/tiny", "--model language"),
        ("https://huggingface.co/org/other", "--model hf:org/other"),
        ("huggingface.co/org/other/tree/v2", "--model hf:org/other@v2"),
        ("org/other:main", "--model hf:org/other"),
    ],
)
def test_a_name_in_another_form_has_the_line_to_type(here, name, fix):
    (error,) = refused(model=name)
    assert (error.where, error.fix) == (f"--model {name}", fix)


def test_an_empty_folder_is_an_error_and_no_download(here, model):
    for name in ("empty", "org/empty"):
        (here / name).mkdir()
        (error,) = refused(model=name)
        assert error.where == f"--model {name}"
    assert error.fix == "--model hf:org/empty"
