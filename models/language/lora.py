"""LoRA: low-rank adapters beside the frozen layers of a pretrained model, by the peft library."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_model
from torch import Tensor

from models.base import DataError
from models.language.config import Lora

_NAME = ".default"
"""peft's name of the only adapter, within the names of its weights."""


def add_adapters(inner: Any, settings: Lora) -> None:
    """Freeze the weights of `inner`, a model of transformers, and add trainable adapters.

    Raises DataError if no layer has a name of `settings.layers`. Source: Hu et al., LoRA, 2021.
    """
    from peft import inject_adapter_in_model

    try:
        with _expected_warnings():
            inject_adapter_in_model(_config(settings), inner)
    except ValueError as error:
        raise DataError(
            "model.lora: " + str(error).strip().split("\n")[0],
            where="model.lora.layers",
            allowed="names of linear layers, such as q_proj; [] for all",
        ) from None


def write(
    inner: Any, settings: Lora, weights: Mapping[str, Tensor], folder: Path, *, merged: bool
) -> None:
    """Write adapters as peft reads them; or model.safetensors with them `merged` into `inner`.

    `inner` has the pretrained weights and no adapters; `weights` are those of the adapters, by the
    names of a model with them. Disk access.
    """
    from peft import get_peft_model, set_peft_model_state_dict

    with _expected_warnings():
        model = get_peft_model(inner, _config(settings))
        named = {f"base_model.model.{n.replace(_NAME, '')}": x for n, x in weights.items()}
        result: Any = set_peft_model_state_dict(model, named)
        assert not result.unexpected_keys, result.unexpected_keys
        if merged:
            file = folder / "model.safetensors"
            save_model(model.merge_and_unload(), str(file), metadata={"format": "pt"})
            return
        model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # a form to describe the model


def _config(settings: Lora) -> Any:
    from peft import LoraConfig

    assert settings.rank is not None
    return LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank if settings.alpha is None else settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.layers) or "all-linear",
        task_type="CAUSAL_LM",
    )


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """Hide that peft adapts a setting to the transposed layers of GPT-2, and uses old names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")
        yield
