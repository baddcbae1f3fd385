"""Trackio: its run in a local database, on a server of your own, or in a Space of the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.callbacks.base import Callback
from training.trackers.base import TrackedRun
from training.trackers.metrics_reader import STEP
from training.trackers.process_tracker import ProcessTracker, Service
from training.trackers.session import Row, aliases, checkpoint_files, picture_files, serve

SERVICE = Service("Trackio", "training.trackers.trackio")
_PROJECT = "gearshift"
_ENVIRONMENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


def tracker(run: TrackedRun, detail: str | None) -> Callback:
    """The callback for the project `detail`; None: gearshift."""
    return ProcessTracker(run, SERVICE, detail)


class Session:
    """An open Trackio run: training.trackers.session.Session.

    Trackio itself keeps what a server or Space refuses, and sends it with the next run there.
    """

    def __init__(self, start: dict[str, Any]) -> None:
        """Open or resume the run of a start message. Imports Trackio."""
        import trackio

        self._trackio = trackio
        self._environment = start["environment"]
        self._project = start["project"] or self._environment.get("TRACKIO_PROJECT") or _PROJECT
        self._run = trackio.init(
            project=self._project,
            # Trackio resumes by name.
            name=f"{start['name']}-{start['id']}",
            config=start["config"],
            resume="allow",
            embed=False,
            auto_log_cpu=False,  # metrics.jsonl has it
        )
        # It has no public name; 0 for a new run.
        self._newest = self.last_step = max(self._run._next_step - 1, 0)

    def address(self) -> Mapping[str, Any]:
        """The Space or server; where the database is local, the command that shows it."""
        space = self._environment.get("TRACKIO_SPACE_ID")
        remote = f"https://huggingface.co/spaces/{space}" if space else None
        server = self._environment.get("TRACKIO_SERVER_URL", "").partition("?")[0]
        return {"url": remote or server or f"trackio show --project {self._project}"}

    def log(self, rows: Sequence[Row]) -> None:
        """Add rows to the metrics."""
        for step, values in rows:
            self._run.log({name: value for name, value in values.items() if name != STEP}, step)
        self._newest = rows[-1][0]

    def log_predictions(self, message: Mapping[str, Any]) -> None:
        """Add a table and pictures to their step."""
        table = self._trackio.Table(columns=message["columns"], data=message["rows"])
        values: dict[str, Any] = {"samples/predictions": table}
        with picture_files(message) as pictures:
            for picture, path in pictures:
                image = self._trackio.Image(path, caption=picture["caption"])
                values[f"samples/{picture['name']}"] = image
            self._run.log(values, message["step"])

    def upload(self, message: Mapping[str, Any]) -> None:
        """Upload a checkpoint as an artifact."""
        artifact = self._trackio.Artifact(name=f"checkpoint-{self._run.name}", type="model")
        for path in checkpoint_files(message):
            artifact.add_file(path)
        self._run.log_artifact(artifact, aliases=aliases(message))

    def alert(self, message: Mapping[str, Any]) -> None:
        """Show an alert."""
        self._run.alert(title=message["title"], text=message["text"])

    def finish(self, summary: Mapping[str, Any], exit_code: int, will_resume: bool) -> None:
        """Add the numbers of the results to the newest step, and a failure as an alert."""
        numbers = {k: v for k, v in summary.items() if isinstance(v, (int, float))}
        if numbers:
            self._run.log(numbers, self._newest)
        if exit_code and not will_resume:
            reason = summary.get("result/reason", "killed")
            self._run.alert(title="failed", text=reason, level=self._trackio.AlertLevel.ERROR)
        self._run.finish()


if __name__ == "__main__":
    serve("trackio", Session, _ENVIRONMENT)
