"""The chart names of a tracker, and the layouts that use them."""

import ast
from pathlib import Path

from models.catalog import FAMILIES
from training.trackers.follow import NAMES, chart_values
from training.trackers.wandb import STEP

LAYOUT = Path(__file__).parents[3] / "docs" / "examples" / "wandb_layout.py"


def layout_names():
    """The assignments of the layout example."""
    tree = ast.parse(LAYOUT.read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.Assign)]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in found}


def test_evaluations_of_other_splits_are_separate_series():
    line = {"kind": "eval", "step": 7, "split": "val", "metrics": {"val_loss": 2}}
    assert chart_values(line) == {"eval/val_loss": 2.0}
    assert chart_values(line | {"split": "earlier"}) == {"eval_earlier/val_loss": 2.0}


def test_unknown_values_are_left_out_and_nonfinite_values_are_kept():
    line = {"kind": "train", "step": 3, "loss": "NaN", "mfu": None, "ram_percent": 41.5}
    found = chart_values(line | {"lr.encoder": 1e-4})
    assert set(found) == {"train/loss", "machine/ram_percent", "optim/lr.encoder"}
    assert found["train/loss"] != found["train/loss"]


def test_the_layout_names_existing_metrics_and_families():
    layout = layout_names()
    assert layout["STEP"] == STEP and set(layout["GOALS"]) == set(FAMILIES)
    plotted = {y for panels in layout["SECTIONS"].values() for ys in panels.values() for y in ys}
    groups = ("eval/", "machine/")
    assert {y for y in plotted if not y.startswith(groups)} <= set(NAMES.values())
