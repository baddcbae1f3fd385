"""What a person is told of stages: which one begins, what each came to, what to type next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.base import exit_codes
from launcher.base.diagnostics import PROGRAM
from launcher.cli.options import FROM, STAGE
from launcher.config import history, staging
from launcher.config.resolved import STAGED, Resolved
from launcher.config.schema import model_name
from launcher.run import start_plan
from launcher.run_folder import run_folder
from launcher.stages import record
from launcher.stages.execute import Ended
from launcher.stages.pipeline import Chain, Link
from training.logging.quantities import duration, real, size


def title(chain: Chain, link: Link) -> str:
    """`stage 1 of 2: encoder, what is trained there`."""
    place = f"stage {chain.links.index(link) + 1} of {len(chain.links)}"
    return f"{place}: {link.name}" + (f", {link.sentence}" if link.sentence else "")


def dry_run(chain: Chain, for_machines: bool) -> str:
    """What each stage that is left would do, one after the other."""
    if for_machines:
        stages = [{"name": link.name, **start_plan.plan_json(s.plan)} for link, s in chain.left]
        return json.dumps({"folder": str(chain.folder), "stages": stages}, indent=2) + "\n"
    parts = [f"{title(chain, link)}\n\n{start_plan.text(begun.plan)}" for link, begun in chain.left]
    return "\n".join([f"{chain.line}\n", *parts] if chain.line else parts)


def summary(ended: Ended) -> str:
    """A line for each stage, and the last line: where all lies, and what to type next."""
    if ended.folder is None:
        return ""
    lines = [*_stages(ended.result), _last_line(ended, ended.folder)]
    return "\n".join(lines)


def as_json(ended: Ended) -> dict[str, Any]:
    """The same for machines."""
    return {
        "exit_code": ended.report.exit_code,
        "folder": None if ended.folder is None else str(ended.folder),
        "error": ended.report.text or None,
        **ended.result,
    }


def nothing_left(chain: Chain) -> dict[str, Any]:
    """What machines are told of a chain that was completed already. Reads the disk."""
    told = {"exit_code": exit_codes.DONE, "folder": str(chain.folder), "error": None}
    return {**told, **record.whole(chain.record)}


def next_stage(resolved: Resolved, folder: Path) -> str | None:
    """The last line of a stage that was trained alone: how the next goes on, here or elsewhere.

    None: it is no such stage, or no other one needs its weights.
    """
    settings = resolved.settings
    if settings.mode != STAGED or len(settings.stages) != 1:
        return None
    [name] = settings.stages
    declared = staging.declared(settings.model.family)
    following = [one.name for one in declared if name in one.of and not one.optional]
    if not following:
        return None
    words = f"--model {model_name(settings.model)} --mode {STAGED}"
    data = resolved.values.get("data.path")
    if data is not None and history.by_person(data):
        words += f" --data {shlex.quote(data.value)}"
    typed = f"{words} {STAGE.flag} {following[0]} {FROM.flag} {shlex.quote(str(folder))}"
    return f"run folder {folder}; stage {following[0]}, here or elsewhere: {PROGRAM} {typed}"


def _stages(result: Mapping[str, Any]) -> Iterator[str]:
    width = max(len(one["name"]) for one in result["stages"])
    for one in result["stages"]:
        yield f"  {one['name']:<{width}}  {_stage(one)}"


def _stage(one: Mapping[str, Any]) -> str:
    if one["parameters"] is None:
        return str(one["status"])
    told = [f"{one['status']}, {one['parameters']:,} parameters"]
    peak = one["peak_memory_bytes"]
    kind = "device" if peak.get("device") is not None else "host"
    if peak.get(kind) is not None:
        told.append(f"peak {size(peak[kind])} on the {kind}")
    if (best := one["best"]) is not None:
        told.append(f"{best['metric']} {real(best['value'])} at step {best['step']}")
    return ", ".join([*told, duration(one["wall_s"])])


def _last_line(ended: Ended, folder: Path) -> str:
    where = f"run folder {folder}"
    stages = ended.result["stages"]
    if ended.report.exit_code == exit_codes.DONE:
        last = shlex.quote(str(folder / stages[-1]["folder"]))
        return f"{where}; write its model: {PROGRAM} export {last} --format safetensors"
    failed = [one["folder"] for one in stages if one["status"] == "failed"]
    if failed:
        where += f"; what happened: {folder / failed[0] / run_folder.LOG}"
    return f"{where}; go on: {PROGRAM} resume {shlex.quote(str(folder))}"
