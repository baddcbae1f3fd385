"""The curves of runs: which lines share a plot, and how they are told apart."""

from pathlib import Path

from launcher.report import curves
from launcher.report.plots import COLORS
from launcher.report.run_record import RunRecord

POINTS = [(1, 2.0), (2, 1.0)]


def record(parts=0, metrics=("val_loss",)):
    train = {"loss": POINTS, **{f"parts.part {n}": POINTS for n in range(parts)}}
    evaluations = {name: POINTS for name in metrics}
    return RunRecord(Path("x"), {}, {}, train, evaluations, [], {})


def styles(runs):
    loss = curves.drawn(runs)["plots"][0]
    assert loss["title"] == "Loss"
    return [(line["color"], line["style"]) for line in loss["lines"]]


def test_losses_and_their_parts_have_different_colors():
    found = styles([record(parts=6, metrics=("val_loss", "val_final_loss"))])
    assert len(found) == len(set(found)) == 9
    assert {style for _, style in found} == {""}


def test_learning_rates_of_parts_are_lines_of_one_run_only():
    run = record()
    run.train.update({"lr": POINTS, "lr.encoder": POINTS})
    for runs, names in (([run], ["lr", "lr.encoder"]), ([run, run], ["x", "x"])):
        plots = curves.drawn(runs)["plots"]
        (rates,) = [plot for plot in plots if plot["title"] == "Learning rate"]
        assert [line["name"] for line in rates["lines"]] == names


def test_a_repeated_color_is_dotted():
    found = styles([record(parts=COLORS + 1)])
    assert len(found) == len(set(found)) == COLORS + 3
    assert [style for _, style in found[COLORS:]] == ["dotted"] * 3


def test_several_runs_are_told_apart_by_color_and_evaluations_by_dashes():
    assert styles([record(), record()]) == [(0, ""), (1, ""), (0, "dashed"), (1, "dashed")]
