import json
import os

import numpy as np
import psutil
import pytest
from PIL import Image

from models.doc_translation.readers import dota

BOUND = 60 * 2**20


def grown(action):
    """Growth of this process in bytes over `action`."""
    process = psutil.Process()
    before = process.memory_info().rss
    result = action()
    return process.memory_info().rss - before, result


@pytest.mark.slow
def test_large_images_of_a_folder_are_read_one_by_one(tmp_path):
    for folder in ("imgs", "zh_mmd"):
        (tmp_path / folder).mkdir()
    names = [f"a{i}_1" for i in range(40)]
    large = tmp_path / "large.png"
    noise = np.random.default_rng(0).integers(0, 256, (2600, 2000, 1), dtype=np.uint8)
    Image.fromarray(noise[..., 0]).save(large, compress_level=0)
    for name in names:
        os.link(large, tmp_path / "imgs" / f"{name}.png")
        (tmp_path / "zh_mmd" / f"{name}.mmd").write_text("正文", encoding="utf-8")
    lists = dict(zip(dota.LISTS, (names[:30], names[30:35], names[35:]), strict=True))
    (tmp_path / "split_dataset.json").write_text(json.dumps(lists))
    assert len(names) * large.stat().st_size > 180 * 2**20
    growth, found = grown(lambda: dota.read(tmp_path, "zh", "file", "stop"))
    more, _ = grown(lambda: [page.image().size for page in found.pages])
    assert growth < BOUND / 4 and more < BOUND
