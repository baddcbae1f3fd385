import io

import numpy as np
import pytest
import torch
from PIL import Image

from gearshift.models.event_seg.embedded import recordings
from gearshift.models.event_seg.readers.recording import Events
from gearshift.models.event_seg.windows import normalize, voxelize
from tests.models import tasks
from tests.models.event_seg.writers import evt2_words, random_events, write_masks, write_raw

SENSOR = 80, 110
WINDOW_US = 33_333


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Indices of event files, shared by the tests of this file; clips are read from the usual
    cache before."""
    clip = recordings(SENSOR)[0]
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    return clip


@pytest.fixture
def clip_events(cache):
    """The events of an embedded clip, whole microseconds from 0."""
    events = cache.all_events
    t = np.round((events.t - events.t[0]) * 1e6).astype(np.int64)
    return Events(t, events.x.astype(np.int32), events.y.astype(np.int32), events.p)


@pytest.fixture
def clip_file(clip_events, tmp_path):
    """The embedded clip as a RAW file."""
    head = f"% evt 2.0\n% geometry {SENSOR[1]}x{SENSOR[0]}\n".encode()
    path = tmp_path / "clip one.raw"
    path.write_bytes(head + evt2_words(clip_events).tobytes())
    return path


@pytest.fixture
def trained(make_task, tmp_path):
    """A task built from a run folder whose data is deleted, and its model."""

    def make(**settings):
        data = tmp_path / "data"
        data.mkdir()
        write_raw(data / "a.raw", random_events(6000, 1_200_000))
        write_masks(data / "a.raw", np.arange(37) * WINDOW_US)
        return tasks.without_data(make_task, tmp_path / "run", data, **settings)

    return make


def mask(prediction):
    return np.asarray(Image.open(io.BytesIO(prediction.files[".png"])))


def test_each_window_of_the_length_in_training_has_a_mask(trained, clip_events, clip_file):
    task, model = trained()
    found = list(task.predict(model, clip_file))
    first, last = clip_events.t[0], clip_events.t[-1]
    assert len(found) == (last + 1 - first) // WINDOW_US >= 19
    assert [p.name for p in found[:2]] == ["clip-one-00000", "clip-one-00001"]
    inside = (clip_events.t >= WINDOW_US) & (clip_events.t < 2 * WINDOW_US)
    grid = voxelize(clip_events[inside], WINDOW_US, 2 * WINDOW_US, (10, *SENSOR))
    with torch.no_grad():
        maps = model(torch.from_numpy(normalize(grid))[None])[0]
    expected = (maps[1] > maps[0]).numpy()
    assert mask(found[1]).dtype == np.uint8
    assert (mask(found[1]) == 255 * expected).all() and 0 < expected.mean() < 1
    assert found[1].text == (
        f"clip one, 0.033 to 0.067 s: {inside.sum():,} events, foreground {expected.mean():.1%}"
    )


def test_recordings_of_a_folder_have_distinct_names_and_masks_of_samples(trained, tmp_path):
    task, model = trained(downsample=2)
    folder = tmp_path / "new"
    (folder / "night").mkdir(parents=True)
    for name, encoding in (("a.raw", "EVT2"), ("a.dat", "DAT"), ("night/b.raw", "EVT3")):
        write_raw(folder / name, random_events(500, 60_000), encoding)
    (folder / "notes.txt").write_text("none")
    (folder / "a_masks.h5").write_bytes(b"not HDF5")  # not read
    found = list(task.predict(model, folder))
    *found, others = found
    assert [p.name for p in found] == ["a-00000", "a-2-00000", "night-b-00000"]
    assert others.text.endswith(": notes.txt") and not others.files
    assert mask(found[0]).shape == (24, 32)
    path = tmp_path / "b.raw"  # without the size of its sensor, which is that in training
    path.write_bytes(b"% evt 2.0\n" + evt2_words(random_events(500, 50_000, (20, 30))).tobytes())
    assert mask(next(task.predict(model, path))).shape == (24, 32)


def test_a_model_of_stage_encoder_writes_features(trained, clip_events, clip_file):
    task, model = trained(stage="encoder")
    found = list(task.predict(model, clip_file))
    assert [p.name for p in found[:2]] == ["clip-one-00000", "clip-one-00001"]
    inside = (clip_events.t >= WINDOW_US) & (clip_events.t < 2 * WINDOW_US)
    grid = voxelize(clip_events[inside], WINDOW_US, 2 * WINDOW_US, (10, *SENSOR))
    with torch.no_grad():
        x = torch.nn.Sequential(*model.down)(torch.from_numpy(normalize(grid))[None])[0]
    file = np.load(io.BytesIO(found[1].files[".npz"]))
    assert file["grid"].tolist() == [*x.shape[1:]]
    cells = file["features"][0].reshape(*file["grid"], -1)
    np.testing.assert_allclose(cells, x.permute(1, 2, 0), atol=1e-5)
    np.testing.assert_allclose(file["mean"][0], x.mean((1, 2)), atol=1e-5)


@pytest.mark.parametrize("stage", ["whole", "encoder"])
def test_the_onnx_model_takes_grids_of_the_sensor(stage, trained):
    task, model = trained(stage=stage, downsample=2)
    whole, inputs = task.onnx_model(model)
    events = inputs["events"]
    assert events.shape[1:] == (10, 24, 32)  # half of what random_events spans
    with torch.no_grad():
        maps = whole(events)
        expected = model(events) if stage == "whole" else torch.nn.Sequential(*model.down)(events)
    assert torch.equal(maps, expected)
