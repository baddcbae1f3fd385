"""Tasks of a family from settings by their name, and what tests do with any task."""

import importlib
import json
import shutil

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gearshift
from gearshift.launcher.config.schema import task_class
from gearshift.models.base import Context
from gearshift.models.common.predictions import FixedDraws
from gearshift.training.storage import write_file


class Draws:
    """Draws for `sample`, seeded by a number instead of epoch and index."""

    def __init__(self, number):
        self.number = number

    def rng(self):
        return np.random.default_rng(self.number)


class Operators(TorchDispatchMode):
    """Names of the operators that are called, in order."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        self.names.append(str(call))
        return call(*args, **(kwargs or {}))


def maker(family, default_share, **defaults):
    """Makes tasks that are not set up yet: the run folder, and settings that replace `defaults`."""
    config = importlib.import_module(f"gearshift.models.{family}.config")

    def make(folder=None, share=default_share, seed=0, **settings):
        given = {"size": "tiny"} | defaults | settings
        in_model = {k: v for k, v in given.items() if k in config.Model.model_fields}
        in_data = {k: v for k, v in given.items() if k not in in_model}
        if "path" in in_data and not isinstance(in_data["path"], list):
            in_data["path"] = str(in_data["path"])
        context = Context(seed, share, folder, torch.device("cpu"))
        return task_class(family)(config.Model(**in_model), config.Data(**in_data), context)

    return make


def saving_context(folder):
    """The context of a task whose run folder is `folder`."""
    return Context(0, 0.1, folder, torch.device("cpu"), write_file=write_file)


def batch_of(task, count=3, split="train"):
    """The first `count` samples of a split, collated."""
    samples = task.data(split)
    return task.collate([samples.sample(number, FixedDraws()) for number in range(count)])


def counts_of(task, model, split, batch):
    """The metric, and its counts over a whole split, evaluated in batches of `batch`."""
    samples, metric, total = task.data(split), task.metric(), 0
    model.eval()
    for at in range(0, len(samples), batch):
        numbers = range(at, min(len(samples), at + batch))
        rows = [samples.sample(number, Draws(number)) for number in numbers]
        total = total + metric.update(model, task.collate(rows))
    model.train()
    return metric, total


def without_data(make, folder, path, change=lambda model: None, **settings):
    """A task built from a run folder whose data is deleted, and its model after a `change`."""
    folder.mkdir(exist_ok=True)
    first = make(folder, path=path, **settings)
    first.setup()
    torch.manual_seed(0)
    trained = first.build()
    with torch.no_grad():
        change(trained)
    if not str(path).startswith("embedded:"):
        shutil.rmtree(path)
    task = make(folder, path=f"{path} deleted", **settings)
    task.setup_without_data()
    model = task.build().eval()
    model.load_state_dict(trained.state_dict())
    return task, model


def train_tiny(family, out, max_steps, **settings):
    """Train the tiny model of a family on its embedded data, with dots in keys as "__".

    Gives the facts in its result, and the metrics of its last evaluation.
    """
    given = {key.replace("__", "."): value for key, value in settings.items()}
    given["train.max_steps"] = max_steps
    done = gearshift.train(f"{family}:tiny", out=out, settings=given, console=False)
    return json.loads((out / "result.json").read_text()), done.metrics("eval")[-1]["metrics"]
