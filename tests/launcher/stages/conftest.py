"""Fixtures shared by the tests of stages."""

from pathlib import Path

import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config.provenance import CLI_LAYER, CliArgs, Origin, Setting
from gearshift.launcher.run_folder.run_plan import PipelineStage
from gearshift.launcher.stages import pipeline
from gearshift.launcher.stages.pipeline import save_stages
from tests.launcher.stages.halves import halves

EEG = "eeg_text:tiny"


def saved_stages(folder, *names):
    """Write the file of a pipeline with stages of these names."""
    folders = [folder / f"{number}-{name}" for number, name in enumerate(names, start=1)]
    entries = [
        PipelineStage(name, "", path, None) for name, path in zip(names, folders, strict=True)
    ]
    save_stages(folder, entries)


@pytest.fixture
def task(here):
    """The task in stages, in the working directory."""
    return halves(here)


@pytest.fixture
def prepared(here):
    """The pipeline or run of the arguments; the list of messages if they are invalid."""

    def prepare(model=EEG, mode="staged", stage=None, out=None, **args):
        origin = Origin(CLI_LAYER, f"--stage {stage}")
        filled = {"stages": Setting([stage], origin)} if stage else {}
        given = CliArgs(model=model, mode=mode, filled=filled, **args)
        try:
            return pipeline.prepare(given, out and Path(out), [])
        except SettingsError as error:
            return [diagnostic.message for diagnostic in error.diagnostics]

    return prepare
