import json

import pytest
import torch
from PIL import Image, ImageDraw

from tests.models.tasks import maker


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_task():
    """A task that is not set up yet, of the embedded cards."""
    return maker("doc_translation", 0.1, dropout=0.0, path="embedded:cards")


@pytest.fixture(scope="session")
def cards(make_task):
    """The embedded cards."""
    task = make_task()
    task.setup()
    return task


@pytest.fixture
def dota(tmp_path):
    """A folder in the DoTA layout: 10 articles of 2 pages, 8 to train, one each to val and test."""
    root = tmp_path / "dota"
    for folder in ("imgs", "en_mmd", "zh_mmd"):
        (root / folder).mkdir(parents=True)
    names = [f"2101.0{article:04}_{page}" for article in range(10) for page in (1, 2)]
    for number, name in enumerate(names):
        page = Image.new("L", (120, 160), 255)
        ImageDraw.Draw(page).rectangle((20, 20, 40 + 3 * number, 60), fill=0)
        page.save(root / "imgs" / f"{name}.png")
        (root / "zh_mmd" / f"{name}.mmd").write_text(f"# 第{number}页\n\n正文。", encoding="utf-8")
        (root / "en_mmd" / f"{name}.mmd").write_text(f"# Page {number}\n\nText.")
    split = {
        "train_name_list": names[:16],
        "valid_name_list": names[16:18],
        "test_name_list": names[18:],
    }
    (root / "split_dataset.json").write_text(json.dumps(split))
    return root
