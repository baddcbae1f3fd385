"""Lays out a W&B workspace for the runs of one family: what to look at first, from top to bottom.

    pip install wandb-workspaces
    python wandb_layout.py ENTITY/PROJECT language

The package is W&B's own, and apart from `wandb`; nothing else of this program needs it.
"""

import sys

import wandb_workspaces.reports.v2 as reports
import wandb_workspaces.workspaces as workspaces

STEP = "global_step"
GOALS = {
    "event_seg": ["val_iou", "f1", "precision", "recall"],
    "language": ["val_loss", "perplexity", "bits_per_byte", "token_accuracy"],
    "abr": ["val_macro_f1", "val_signal_mse"],
    "doc_translation": ["val_bleu"],
    "eeg_text": ["val_rouge1_gain", "val_masked_r2"],
}
"""The metrics of each family that say how good it is; the first is the one that ranks runs."""
SECTIONS = {
    "loss": {"loss": ["train/loss", "eval/val_loss"]},
    "optimizer": {
        "learning rate": ["optim/lr"],
        "gradient norm": ["optim/grad_norm"],
        "loss scale": ["optim/loss_scale"],
    },
    "throughput": {
        "samples a second": ["perf/samples_per_s"],
        "units a second": ["perf/units_per_s"],
        "MFU": ["perf/mfu"],
    },
    "memory": {
        "device": ["memory/device_bytes"],
        "host": ["memory/host_bytes"],
        "percent of the machine": ["machine/ram_percent", "machine/gpu_percent"],
    },
    "where time goes": {
        "a step, and its data": ["time/step_s", "time/data_s"],
        "passes and update": ["time/forward_s", "time/backward_s", "time/optimizer_s"],
    },
}


def workspace(entity: str, project: str, family: str) -> workspaces.Workspace:
    """The workspace of a family; `save` sends it."""
    goals = {name: [f"eval/{name}"] for name in GOALS[family]}
    sections = [section("how good it is", goals)]
    sections += [section(name, panels) for name, panels in SECTIONS.items()]
    samples = [reports.MediaBrowser(media_keys=["samples/predictions"])]
    sections.append(workspaces.Section(name="samples", panels=samples, is_open=True))
    return workspaces.Workspace(entity=entity, project=project, name=family, sections=sections)


def section(name: str, panels: dict[str, list[str]]) -> workspaces.Section:
    """A section with a line plot for each of `panels`."""
    plots = [reports.LinePlot(title=title, x=STEP, y=y) for title, y in panels.items()]
    return workspaces.Section(name=name, panels=plots, is_open=True)


if __name__ == "__main__":
    entity, _, project = sys.argv[1].partition("/")
    print(workspace(entity, project, sys.argv[2]).save().url)
