"""Every shipped mode resolves for every family and size, with the values it promises."""

import pytest

from gearshift.launcher.config import presets
from gearshift.launcher.config.fitted_batch import fitted
from gearshift.launcher.config.scaled_change import is_change
from gearshift.launcher.config.schema import config_of, setting_infos
from gearshift.models.catalog import stages_of
from tests.ds_configs.tables import SHIPPED
from tests.launcher.given import SERVER, resolved

SIZES = [f"{family}:{size}" for family in SHIPPED for size in config_of(family).SIZES]
RUN = [mode for mode in presets.modes() if mode != "staged"]

# Most of the time of the language model are evaluations, and these modes leave out two of three;
# of the event model it is a tenth, and they leave out all but the last;
# the EEG model learns to read, and the translation model to copy, after half the steps only.
SHARES = {
    "event_seg:tiny": (0.55, 0.25),
    "language:tiny": (0.85, 0.61),
    "eeg_text:tiny": (0.64, 0.25),
    "doc_translation:tiny": (0.67, 0.25),
}


def keys_of(mode):
    return {line.key: line.value for line in presets.mode(mode).lines}


@pytest.mark.parametrize("mode", presets.modes())
def test_a_mode_has_a_sentence_known_keys_known_operations_and_promises(mode):
    preset = presets.mode(mode)
    assert 20 < len(preset.sentence) < 90 and not preset.sentence.endswith(".")
    assert set(keys_of(mode)) <= set().union(*(setting_infos(family) for family in SHIPPED))
    for key, value in keys_of(mode).items():
        assert key == "promise" or not isinstance(value, dict) or is_change(value), key
    assert bool(preset.promise) == (mode != "default")


@pytest.mark.parametrize("model", SIZES)
def test_modes_resolve_without_a_warning_and_keep_the_batch_and_the_samples_they_promise(model):
    default = resolved(model=model)
    runs = {mode: resolved(model=model, mode=mode) for mode in RUN}
    assert {mode: run.warnings for mode, run in runs.items() if run.warnings} == {}
    for mode, world_size in zip(RUN * 2, (None,) * len(RUN) + (2,) * len(RUN), strict=True):
        run = resolved(model=model, mode=mode, machine=SERVER, world_size=world_size)
        assert run.warnings == [], (mode, world_size)
    for mode in ("resource-efficient", "conservative"):
        assert runs[mode].batching.global_batch == default.batching.global_batch, mode
        assert runs[mode].promises["global_batch"] == {"at_least": 1, "at_most": 1}, mode
    for mode, share in zip(("fast", "ultra-fast"), SHARES.get(model, (0.5, 0.25)), strict=True):
        assert samples(runs[mode]) <= share * samples(default) * 1.1, mode


def samples(run):
    """How many a run takes; a length in epochs is far above any in steps."""
    train = run.settings.train
    return (train.max_steps or 1e9 * train.epochs / train.global_batch) * train.global_batch


@pytest.mark.parametrize("model", SIZES)
def test_the_stages_take_at_most_twice_the_samples_of_the_default_at_its_learning_rate(model):
    together, lr = 0.0, resolved(model=model).settings.optim.lr
    for stage in stages_of(model.partition(":")[0]):
        weights = [f"{stage.loads}=earlier"] if stage.loads else []
        run = resolved(f"stages=[{stage.name}]", *weights, model=model, mode="staged")
        assert run.settings.optim.lr >= lr / 10, stage.name  # not that of a larger size
        together += 0 if stage.optional else samples(run)
    assert 0 < together <= 2 * samples(resolved(model=model))


@pytest.mark.parametrize("mode", ["fast", "ultra-fast"])
def test_a_fast_mode_shortens_a_run_in_steps_as_much_as_one_in_epochs(mode):
    train = keys_of(mode)
    # Without accumulation, as in all runs with a length in steps.
    batch = train["train.micro_batch"]["scale"] * train["train.accumulation"]
    assert train["train.max_steps"]["scale"] == train["train.epochs"]["scale"] / batch


@pytest.mark.parametrize("mode", ["fast", "ultra-fast"])
@pytest.mark.parametrize("family", SHIPPED)
def test_on_little_data_the_fast_modes_take_no_larger_batch_and_the_validation_of_the_default(
    family, mode
):
    default = resolved(model=f"{family}:tiny")
    run = fitted(resolved(model=f"{family}:tiny", mode=mode), 400)
    settings = run.settings
    assert run.batching.global_batch <= default.batching.global_batch
    assert settings.optim.lr >= default.settings.optim.lr
    assert settings.eval.share == default.settings.eval.share
    assert settings.schedule.name != "cosine-restarts"  # the first cycle is longer than the run


def test_stages_of_eeg_text_promise_the_memory_of_a_pc():
    for stage, weights, gib in (
        ("encoder", "model.encoder=null", 4),
        ("whole", "model.start=runs/text", 8),
    ):
        promises = resolved(f"stages=[{stage}]", weights, model="eeg_text", mode="staged").promises
        for name in ("host_peak_bytes", "device_peak_bytes"):
            assert promises[name]["at_most"] == gib * 2**30, stage
        assert promises["metric"]["at_least"] == 1, stage
