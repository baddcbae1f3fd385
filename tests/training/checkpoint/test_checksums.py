"""Checksums of the blocks of a file."""

import zlib

import pytest

from training.checkpoint.checksums import check
from training.checkpoint.manifest import CheckpointError, CheckpointFile


@pytest.mark.parametrize("content", [b"", b"tens"])
def test_a_file_that_ends_within_a_block_is_damaged_whatever_its_checksum(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    check(tmp_path, (CheckpointFile("a", len(content), (zlib.crc32(content),)),))
    with pytest.raises(CheckpointError, match="a is damaged"):
        check(tmp_path, (CheckpointFile("a", 10, (zlib.crc32(content),)),))
