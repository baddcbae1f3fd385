"""Options of the original code bases that have another name here."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.base.diagnostics import OFF, ON, fold, plain
from launcher.config.options import OPTIONS

_FLAGS = {option.key: option.flag for option in OPTIONS if option.key is not None}


@dataclass(frozen=True)
class Original:
    """One option under its names in the originals, and its equivalent."""

    names: tuple[str, ...]
    here: str
    """An option, or the key of a setting."""
    on: str | None = None
    """The value of a switch that is given without a value, or as true."""
    off: str | None = None
    """The value of a switch that is given as false."""
    remark: str = ""
    """For the page about the originals."""

    @property
    def flag(self) -> str:
        """The option to type: the setting's own if it has one, else --set."""
        return self.here if self.here.startswith("--") else _FLAGS.get(self.here, "--set")

    @property
    def option(self) -> str:
        """What to type, without a value."""
        return f"--set {self.here}" if self.flag == "--set" else self.flag

    def value(self, typed: object) -> object:
        """The value here for a `typed` value; None: the switch is given without a value."""
        word = "true" if typed is None else str(typed).strip().lower()
        if self.on is not None and word in ON:
            return self.on
        return self.off if self.off is not None and word in OFF else typed

    def line(self, typed: object = None) -> str:
        """The option to type, with its value; `…` for an unknown one."""
        value = self.value(typed)
        text = "…" if value is None else shlex.quote(plain(value))
        return f"{self.option}{'=' if self.flag == '--set' else ' '}{text}"


ORIGINALS: Sequence[Original] = (
    Original(("learning_rate",), "optim.lr"),
    Original(
        ("gradient_accumulation_steps", "accumulation_steps", "grad_accum"),
        "train.accumulation",
        remark="or the global batch: `--set train.global_batch=N`",
    ),
    Original(("max_length", "max_seq_len", "max_seq_length"), "data.seq_len"),
    Original(
        ("use_gpu", "use_cuda"), "device", "cuda", "cpu", "the default takes a GPU if there is one"
    ),
    Original(
        ("amp", "fp16", "use_amp", "mixed_precision"), "precision", "fp16", "fp32", "or `bf16`"
    ),
    Original(("bf16",), "precision", "bf16", "fp32"),
    Original(("gradient_checkpointing",), "memory.activation_checkpointing", "full", "none"),
    Original(("max_ram_percent",), "limits.ram", remark="in percent, see [limits](limits.md)"),
    Original(("max_gpu_percent",), "limits.gpu", remark="in percent"),
    Original(
        ("patience", "early_stopping_patience"), "stop.patience", remark="counted in evaluations"
    ),
    Original(("output_dir", "logdir", "save_dir"), "--out"),
)
"""A name that differs only in case, `-` and `_` is not needed here; see nearest_match."""

_BY_NAME = {fold(name): original for original in ORIGINALS for name in original.names}


def original_of(name: str) -> Original | None:
    """The entry for an option, or for the last part of a key, without regard to case, `-`, `_`."""
    return _BY_NAME.get(fold(name.rpartition(".")[2]))
