"""Reads runs/mine/last with numpy, without PyTorch and Gearshift."""

import json
import zlib
from pathlib import Path

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}
DTYPES |= {"I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}  # BF16: the upper half of an F32

folder = Path("runs/mine/last")
manifest = json.loads((folder / "manifest.json").read_bytes())
assert (manifest["format"], manifest["version"]) == ("gearshift-checkpoint", 2)
for file in manifest["files"]:
    with (folder / file["name"]).open("rb") as stream:
        for crc32 in file["crc32"]:
            assert zlib.crc32(stream.read(2**24)) == crc32, f"{file['name']} is damaged"
        assert stream.read() == b"" and stream.tell() == file["bytes"]

state = json.loads((folder / "state.json").read_bytes())
tensors = {}
for rank in range(manifest["world_size"]):
    data = (folder / f"rank-{rank:05d}.safetensors").read_bytes()
    first = 8 + int.from_bytes(data[:8], "little")
    table = json.loads(data[8:first])
    del table["__metadata__"]
    for key, entry in table.items():
        (kind, rest), (begin, end) = key.split("|", 1), entry["data_offsets"]
        name, start = rest.rsplit("|", 1)
        part = np.frombuffer(data[first + begin : first + end], DTYPES[entry["dtype"]])
        shape = list(state["buffers" if kind == "buffer" else "shapes"][name])
        if kind in ("row_var", "col_var"):
            shape[-1 if kind == "row_var" else -2] = 1
        whole = tensors.setdefault((kind, name), np.empty(shape, part.dtype))
        whole.reshape(-1)[int(start) : int(start) + len(part)] = part
for (kind, name), tensor in sorted(tensors.items()):
    print(kind, name, tensor.shape)
