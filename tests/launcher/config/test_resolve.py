"""Each value comes from the highest layer that sets it, with the values it overrides."""

import itertools

import pytest

from gearshift.launcher.config.provenance import CliArgs, KeySets, Origin, Setting
from gearshift.launcher.config.resolve import resolve
from tests.ds_configs.tables import SHIPPED
from tests.launcher.given import LAPTOP, SERVER, refused, resolved, stacked


@pytest.fixture
def write(tmp_path):
    """Writes a settings file and gives its path."""
    numbers = itertools.count()

    def write(text, ending="yaml"):
        path = tmp_path / f"{next(numbers)}.{ending}"
        path.write_text(text)
        return path

    return write


def history(value):
    return [(value.value, value.origin.layer)] + [(v, o.layer) for v, o in value.replaced]


def test_the_command_line_overrides_files_mode_and_family_in_this_order(write):
    first = write("optim: {lr: 1e-3}\ntrain.seed: 1\n")
    second = write('{"optim": {"lr": 2e-3}}', "json")
    run = resolved(model="language", mode="resource-efficient", configs=[first, second], lr="3e-3")
    assert history(run.values["optim.lr"]) == [
        (3e-3, "command line"),
        (2e-3, "--config files"),
        (1e-3, "--config files"),
        (5e-5, "mode"),
        (5e-5, "mode"),
        (1e-4, "family"),
        (1e-3, "built-in"),
    ]
    assert (run.settings.optim.lr, run.settings.train.seed) == (3e-3, 1)


def test_origins_name_file_and_line_or_the_argument_as_given(write):
    config = write("train:\n  seed: 3\n")
    run = resolved("log.every=5", model="language", mode="fast", configs=[config], lr="1e-3")
    origins = {key: run.values[key].origin.where for key in run.values}
    expected = {"train.seed": f"{config}:2", "log.every": "--set log.every=5"}
    expected |= {"optim.lr": "--lr 1e-3", "mode": "--mode fast", "optim.eps": "built-in"}
    assert expected.items() <= origins.items()
    assert origins["loader.prefetch"].startswith("ds_configs/modes/fast.yaml:")
    assert origins["optim.weight_decay"].startswith("ds_configs/models/language.yaml:")
    run = resolve(CliArgs(model="language:tiny", mode="lite", mode_option="--lite"), LAPTOP)
    assert run.values["mode"].origin.where == "--lite"


def test_family_size_mode_and_engine_may_come_from_a_file(write):
    config = write("model: {family: language, size: small}\nmode: fast\nengine: {name: oss}\n")
    run = resolved(model=None, configs=[config])
    assert (run.settings.model.size, run.settings.mode) == ("small", "fast")
    assert run.settings.engine.name == "oss"
    run = resolved(model="language:tiny", mode="lite", configs=[config])
    assert (run.settings.model.size, run.settings.data.fraction) == ("tiny", 0.25)


def test_a_size_that_nobody_named_is_noted():
    run = resolved(model=None)
    assert (run.settings.model.size, run.notes[0][:14]) == ("small", "no model named")
    for family in SHIPPED:
        for sets, options, is_noted in (
            ((), {}, True),
            ((), {"machine": SERVER}, False),
            ((), {"mode": "lite"}, False),
            (("model.size=full",), {}, False),
        ):
            notes = resolved(*sets, model=family, **options).notes
            assert any(f"--model {family}:tiny" in note for note in notes) == is_noted, (
                sets,
                options,
            )


def test_lite_makes_the_default_size_smaller():
    models = ("language", None, "language:124M", "language:tiny")
    sizes = [resolved(model=model, mode="lite").settings.model.size for model in models]
    assert sizes == ["lite", "tiny", "124M", "tiny"]


def test_the_engine_layer_is_between_mode_and_settings_of_the_user():
    run = resolved(engine="zero3")
    assert history(run.values["compile"]) == [("off", "engine"), ("auto", "built-in")]
    assert resolved("compile=on", engine="zero3").settings.compile == "on"


def test_the_default_engine_follows_the_world_size():
    for machine, options, engine, nproc, reason in (
        (LAPTOP, {}, "local", 1, "1 process"),
        (LAPTOP, {"nproc": "2"}, "ddp", 2, "2 processes"),
        (SERVER, {}, "ddp", 4, "4 processes"),
        (SERVER, {"nproc": "1"}, "local", 1, "1 process"),
        (SERVER, {"engine": "local", "nproc": "2"}, "local", 2, "--engine local"),
        (LAPTOP, {"world_size": 8, "nproc": "1"}, "ddp", 8, "8 processes"),  # of torchrun
    ):
        run = resolved(machine=machine, **options)
        assert (run.settings.engine.name, run.batching.world_size) == (engine, nproc), options
        assert run.values["engine.name"].origin.where == reason


def test_keys_and_values_mean_the_same_however_they_are_written(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1e3").mkdir()
    dotted = write("limits.critical.ram: 90\nlimits: {critical.gpu: 91}\n")
    critical = resolved(configs=[dotted]).settings.limits.critical
    assert (critical.ram, critical.gpu) == (90, 91)
    assert resolved(configs=[write("train:\n"), write("")]).settings == resolved().settings
    assert resolved(data="1e3").settings.data.path == "1e3"  # a text stays one
    assert resolved("optim.lr=1e-3", "optim.lr=2e-3").settings.optim.lr == 2e-3
    for thousand in ("1e3", "1000.0"):
        assert resolved(f"train.max_steps={thousand}").settings.train.max_steps == 1000
    in_file = resolved(configs=[write("train: {max_steps: 1e3}")])
    assert in_file.values["train.max_steps"].value == 1000
    run = resolved("optim.clip_norm=null", configs=[write("optim: {weight_decay: 0.01}")])
    assert run.settings.optim.clip_norm is None
    assert history(run.values["optim.weight_decay"]) == [
        (0.01, "--config files"),
        (0.01, "family"),
        (0.01, "built-in"),
    ]


def test_all_errors_of_one_start_are_reported_together_in_order(write):
    first = write("train:\n  epoch: 3\noptim:\n  lr: fast\nlimits: {ram: 96}\n")
    second = write("a: [1\n")
    third = write("mode: lit\nlog: {every: 0}\n")
    files = [first, second, third]
    found = refused("precision=bf61", configs=files, engine="zero", nproc="0")
    assert [diagnostic.key for diagnostic in found] == [
        *("train.epoch", "optim.lr", "limits.ram", None, "mode", "log.every"),
        *("engine.name", "engine.nproc", "precision"),
    ]
    config = write("optim: {momentum: 0.5}\nsave: {every: 100}\n")
    run = resolved("loader.prefetch=3", "eval.every=99", configs=[config], max_steps="50")
    keys = [diagnostic.key for diagnostic in run.warnings]
    assert keys == ["optim.momentum", "save.every", "loader.prefetch", "eval.every"]


def value(*pairs):
    """A value from (value, layer) pairs, newest first."""
    (new, layer), *below = pairs
    return Setting(new, Origin(layer, layer), [(v, Origin(name, name)) for v, name in below])


def test_only_a_changed_value_is_a_decision_of_the_user():
    values = {
        "repeated": value((2, "--config files"), (2, "family"), (1, "built-in")),
        "typed": value((3, "command line"), (3, "--config files"), (2, "family")),
        "back": value((1, "--config files"), (2, "mode"), (1, "built-in")),
        "of the mode": value((2, "mode"), (1, "built-in")),
        "open": value(("auto", "engine"), (1, "family"), (1, "built-in")),
    }
    keys = KeySets.of(values)
    assert (keys.user, keys.decided) == ({"repeated", "typed", "back"}, {"typed", "back"})
    assert (keys.changed, keys.auto) == ({"back", "of the mode"}, {"open"})
    assert [keys.shipped[key] for key in values] == [2, 2, 2, 2, 1]
    assert [keys.defaults[key] for key in values] == [2, 2, 1, 1, 1]


def layer(name, **values):
    dotted = {key.replace("__", "."): value for key, value in values.items()}
    return {key: Setting(v, Origin(name, name)) for key, v in dotted.items()}


def test_a_change_is_of_the_default_and_not_of_the_general_mode():
    changes = (16, {"scale": 0.5}, {"scale": 0.25}, {"scale": 2})
    names = ("family", "mode", "mode", "mode")
    layers = [layer(n, train__micro_batch=c) for n, c in zip(names, changes, strict=True)]
    for count, expected in ((2, 8), (3, 4), (4, 32)):
        values, diagnostics = stacked(layers[:count])
        assert (values["train.micro_batch"].value, diagnostics) == (expected, [])


def test_only_modes_may_change_a_value_and_an_unknown_key_is_an_error():
    for name, key, value in (
        ("family", "train.micro_batch", {"scale": 2}),
        ("--config files", "train.micro_batch", {"scale": 2}),
        ("mode", "train.speed", 2),
        ("mode", "data.downsample", 2),  # of another family
    ):
        _, diagnostics = stacked([{key: Setting(value, Origin(name, name))}])
        assert [diagnostic.key for diagnostic in diagnostics] == [key]


def test_an_invalid_value_leaves_that_of_the_lower_layer():
    layers = [layer("--config files", optim__lr="x"), layer("--config files", log__every=3)]
    values, diagnostics = stacked([*layers, layer("--config files", train__epochs=3)])
    assert [diagnostic.key for diagnostic in diagnostics] == ["optim.lr"]
    assert (values["optim.lr"].value, values["log.every"].value) == (1e-3, 3)
    assert type(values["train.epochs"].value) is float
    one, two = (
        {"step_time": {"at_most": 0.5}, "parameters": {"at_most": 1}},
        {"step_time": {"at_most": 0.4}},
    )
    values, _ = stacked([layer("mode", promise=one), layer("mode", promise=two)])
    assert values["promise"].value == {**one, **two}  # those of layers add up
