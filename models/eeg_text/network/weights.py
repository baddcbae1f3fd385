"""The encoder of a run of stage encoder, taken over by exact names."""

from __future__ import annotations

from pathlib import Path

from torch.nn import Module

from models.base import DataError

PREFIX = "encoder."
_MODEL = "model.safetensors"
LEGAL = "a run folder of  --set model.stage=encoder , or a safetensors file of its model"


def find(path: Path) -> Path:
    """The safetensors file of a run folder, a checkpoint or an export, or `path` itself.

    Of a run folder the best checkpoint. Touches disk; raises DataError.
    """
    places = [path] if path.is_file() else [path / "best" / _MODEL, path / _MODEL]
    for place in places:
        if place.is_file():
            return place
    raise DataError(
        f"model.encoder '{path}' holds no weights",
        where=f"looked for {' and '.join(str(place) for place in places)}",
        legal=LEGAL,
        mend=f"python -m launcher export {path} --format safetensors",
    )


def load(encoder: Module, path: Path) -> int:
    """Give `encoder` all its tensors from the file at `path`; how many there were.

    Touches disk. Raises DataError unless each one of them is there, with its shape, and no other.
    """
    from safetensors import SafetensorError, safe_open

    own = encoder.state_dict()
    try:
        with safe_open(path, "pt") as file:
            stored = [name for name in list(file.keys()) if name.startswith(PREFIX)]
            names = [name.removeprefix(PREFIX) for name in stored]
            missing = sorted(set(own) - set(names))
            strange = sorted(set(names) - set(own))
            if missing or strange:
                matched = len(own) - len(missing)
                raise _other(path, f"{matched} of {len(own)} tensors match", missing + strange)
            found = {name: file.get_tensor(PREFIX + name) for name in own}
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"model.encoder '{path}' cannot be read: {error}", where=str(path), legal=LEGAL
        ) from None
    shapes = [name for name, tensor in found.items() if tensor.shape != own[name].shape]
    if shapes:
        raise _other(path, f"{len(own) - len(shapes)} of {len(own)} tensors match", shapes)
    encoder.load_state_dict(found, strict=True)
    return len(found)


def _other(path: Path, what: str, names: list[str]) -> DataError:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return DataError(
        f"model.encoder '{path}' is of another encoder: {what}",
        where=f"{PREFIX}{names[0]}{more}",
        legal=f"{LEGAL}, of the same model.size",
    )
