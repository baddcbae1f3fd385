"""The rows of W&B's own files."""

import json
import struct

# Blocks of 32 KiB, the first one after a header of 7 bytes; each block has records with a checksum, a
# length and a type. Source: LevelDB, doc/log_format.md, and W&B's transaction log.
_BLOCK, _RECORD_HEAD = 32768, struct.Struct("<IHB")
_FULL, _FIRST, _LAST = 1, 2, 4


def files(folder):
    """The .wandb files of the run in `folder`, oldest first."""
    run_id = json.loads((folder / "wandb" / "run.json").read_text())["id"]
    paths = (folder / "wandb").glob(f"*run-*-{run_id}/run-{run_id}.wandb")
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns)


def rows(path):
    """The history in a file."""
    from wandb.proto import wandb_internal_pb2

    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}


def _records(data):
    at, parts = 7, b""
    while at + _RECORD_HEAD.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _RECORD_HEAD.size:
            at += left
            continue
        _, length, kind = _RECORD_HEAD.unpack_from(data, at)
        at += _RECORD_HEAD.size
        part = data[at : at + length]
        at += length
        parts = part if kind in (_FULL, _FIRST) else parts + part
        if kind in (_FULL, _LAST):
            yield parts
