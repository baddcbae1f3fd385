"""Lines to paste against data and pretrained folders: after each, they are read, or trained on."""

import json

import numpy as np
import pytest

from tests.edges.edf_files import Signal, write_edf
from tests.edges.pasting import QUICK, SLOW, Case, a_run, folder_of, parameters
from tests.models.event_seg.writers import random_events, write_masks, write_mvsec, write_raw
from tests.runs.conftest import REQUESTS

LANGUAGE = f"--model language:tiny {QUICK}"
ABR = "--model abr:tiny --set eval.share=0.3"
EEG = "--model eeg_text:tiny --set eval.share=0.2"
EVENTS = f"--model event_seg:tiny {QUICK} --set eval.share=0.2"
PAGES = "--model doc_translation:tiny --set eval.share=0.2"

# ---- language ------------------------------------------------------------------------------------


def rows(count=80, **columns):
    """JSON lines; {} in a text is the number of the row."""

    def cell(value, number):
        return value.format(number) if isinstance(value, str) else value

    lines = ({name: cell(value, n) for name, value in columns.items()} for n in range(count))
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def llama(layers=3, **changes):
    """A folder of a pretrained model whose config.json says something else."""

    def make(path):
        from tests.models.language.test_pretrained import CONFIGS, edit_config, save

        save(path, CONFIGS["llama"]())
        edit_config(path, **changes)

    return make


def tokenizer(entries):
    def make(path):
        from models.language import bpe
        from tests.models.language.test_pretrained import TEXT

        path.write_text(bpe.train([TEXT * 2], entries).inner.to_str(), encoding="utf-8")

    return make


def dangling(path):
    path.mkdir()
    (path / "a.jsonl").write_text(REQUESTS)
    (path / "b.jsonl").symlink_to(path / "nowhere")


def russian(path):
    TEXTS(path)
    (path / "a.txt").write_bytes(("Привет\n\n" * 20).encode("cp1251"))


def many(path):
    """Texts whose tokens are too many for the memory."""
    folder_of(**{f"text{n}_txt": f"Text {n}. " * 90_000 for n in range(12)})(path)


def start_weights(path):
    """Weights of a run without its tokenizer."""
    a_run(path)
    (path / "tokenizer.json").unlink(missing_ok=True)


CHAT = {"prompt": "what is {}", "response": "{}"}
LONG = rows(3, prompt="a", response="word " * 300) + REQUESTS
TEXTS = folder_of(
    **{f"text{n}_txt": f"A short text of number {n}, and more of it.\n" * 9 for n in range(12)}
)
OF_LANGUAGE = [
    Case(f"{LANGUAGE} --data texts --set data.seq_len=4096", {"texts": TEXTS}),
    Case(f"{LANGUAGE} --data a.jsonl --set model.pretrained=model --set model.tokenizer=big.json", {"a.jsonl": REQUESTS, "model": llama(), "big.json": tokenizer(330)}, says="leave out model.tokenizer", marks=SLOW),
    Case(f"{LANGUAGE} --data a.jsonl --set model.pretrained=model", {"a.jsonl": REQUESTS, "model": llama(num_hidden_layers=4)}, says="model.allow_missing", marks=SLOW),
    Case(f"{LANGUAGE} --data a.jsonl", {"a.jsonl": rows(**CHAT, label=True)}),
    Case(f"{LANGUAGE} --data a.jsonl", {"a.jsonl": rows(**CHAT, mood="good", odd="x")}),
    Case(f"{LANGUAGE} --data a.csv", {"a.csv": "prompt,reaction\n" + "".join(f"what is {n},{n}\n" for n in range(80))}),
    Case(f"{LANGUAGE} --data a.jsonl", {"a.jsonl": rows(80, prompt="a {0}", response="word {0} " * 120)}),
    Case(f"{LANGUAGE} --data a.jsonl", {"a.jsonl": LONG}),
    Case(f"{LANGUAGE} --data a.jsonl", {"a.jsonl": REQUESTS + '{"prompt": null, "response": "a"}\n'}),
    Case(f"{LANGUAGE} --mode staged --stage text --set data.text=a.jsonl", {"a.jsonl": REQUESTS, "texts": TEXTS}, {"data.text=PATH": "data.text=texts --set data.seq_len=8", "PATH": "a.jsonl"}),
    Case(f"{LANGUAGE} --data a.jsonl --set model.freeze_layers=99", {"a.jsonl": REQUESTS}),
    Case(f"{LANGUAGE} --data a.jsonl --set model.start=run --set model.tokenizer=bpe", {"a.jsonl": REQUESTS, "run": start_weights, "tokens.json": tokenizer(272)}, {"PATH": "tokens.json"}),
    Case(f"{LANGUAGE} --data texts --set eval.every=null --set eval.last=false", {"a.jsonl": "", "texts": many, "cache": "a file"}, {"FOLDER": "new"}, variables={"GEARSHIFT_CACHE": "cache"}, marks=SLOW),
    Case(f"{LANGUAGE} --data texts --set data.seq_len=16", {"texts": russian}),
    Case(f"{LANGUAGE} --data a.jsonl", {"a.jsonl": REQUESTS.encode() + b"\0\n"}),
    Case(f"{LANGUAGE} --data a.jsonl --set eval.share=0.01", {"a.jsonl": REQUESTS}),
    Case(f"{LANGUAGE} --data a.jsonl --set memory.attention=efficient", {"a.jsonl": REQUESTS}),
    Case(f"{ABR} {QUICK} --data embedded:few-patient", marks=SLOW),
    Case(f"{LANGUAGE} --data texts", {"texts": dangling}),
    Case(f"{LANGUAGE} --data a.jsonl --set train.global_batch=100 --batch-size 100", {"a.jsonl": REQUESTS}),
    Case(f"{LANGUAGE} --data a.jsonl --set train.global_batch=33 --batch-size 33", {"a.jsonl": REQUESTS}),
    Case(f"{LANGUAGE} --data a.jsonl --max-steps 6 --set log.profile=5", {"a.jsonl": REQUESTS}, marks=SLOW),
]  # fmt: skip

# ---- event_seg -----------------------------------------------------------------------------------


def recordings(**sensors):
    """A folder of recordings, whose headers name the sensor."""

    def make(path):
        path.mkdir()
        for number, (name, sensor) in enumerate(sensors.items()):
            file = write_raw(path / f"{name}.raw", random_events(4000, 900_000, sensor, number))
            height, width = sensor
            content = file.read_bytes()
            geometry = f"geometry {width}x{height}".encode()
            file.write_bytes(content.replace(b"geometry 64x48", geometry))

    return make


def labeled(path):
    recordings(a=(48, 64), b=(48, 64))(path)
    write_masks(path / "a.raw", range(50_000, 900_000, 50_000))


def narrow(path):
    """Events outside the sensor that the header names."""
    recordings(a=(48, 64))(path)
    file = path / "a.raw"
    file.write_bytes(file.read_bytes().replace(b"geometry 64x48", b"geometry 32x48"))


def sequences(path):
    path.mkdir()
    for name in ("indoor_flying1", "indoor_flying2"):
        write_mvsec(path / f"{name}_data.hdf5", frames=20)


UNLABELED = "--set model.objective=masked-voxels"
OF_EVENTS = [
    Case(f"{EVENTS} --data folder --set model.objective=edges", {"folder": labeled}),
    Case(f"{EVENTS} --data folder {UNLABELED}", {"folder": recordings(a=(48, 64), b=(32, 40))}, {"HEIGHT": "48", "WIDTH": "64"}),
    Case(f"{EVENTS} --data folder {UNLABELED}", {"folder": narrow}),
    Case(f"{EVENTS} --data folder --set 'data.sequences=[indoor_flying3, indoor_flying2]'", {"folder": sequences}),
]  # fmt: skip

# ---- abr -----------------------------------------------------------------------------------------


def responses(heads="patient_id,intensity,hear_loss", cells="{0},80,{1}", count=24):
    """A table of responses; {0} is the number of a patient, {1} that of a class."""
    noise = np.random.default_rng(0).normal(size=(count, 200))
    points = ",".join(map(str, range(1, 201)))
    found = [f"{heads},{points}"]
    for number, signal in enumerate(noise):
        found.append(f"{cells.format(number, number % 5)},{','.join(f'{x:.3f}' for x in signal)}")
    return "\n".join(found) + "\n"


def clicks(**rates):
    """A recording of channels at their rates, with a click every tenth of a second."""

    def make(path):
        rng = np.random.default_rng(0)
        signals = [
            Signal(name.replace("_", " "), rate, rng.normal(0, 5, rate * 40))
            for name, rate in rates.items()
        ]
        times = [(0.1 * n, 0.0, f"click {20 + 20 * (n % 4)} dB") for n in range(390)]
        write_edf(path, signals, times)

    return make


def series(path):
    """Level series of animals."""
    path.mkdir()
    head = ":RUN-3\tLEVEL SWEEP\t\r:FREQ: 16.00\tREP RATE (/sec): 40\tSAMPLE (µsec): 10\t\r"
    for number in range(6):
        data = np.random.default_rng(number).standard_normal((1000, 3))
        lines = ["\t".join(f"{value: .6f}" for value in row) for row in data]
        text = f"{head}:LEVELS:20;40;60;\t\r:DATA\r" + "\r\n".join(lines) + "\r\n\r"
        (path / f"ABR-{number}-1").write_bytes(text.encode("iso-8859-1"))


SWEEPS = "--set data.sweeps=9 --set data.reject_uv=1000"
OF_ABR = [
    Case(f"data check a.csv {ABR}", {"a.csv": responses("who,intensity,hear_loss")}),
    Case(f"data check folder {ABR} --set data.columns=[a=age]", {"folder": series}),
    Case(f"data check a.edf {ABR} {SWEEPS} --set data.channel=Czz", {"a.edf": clicks(Cz=10_000, Audio=10_000)}),
    Case(f"data check a.edf {ABR} {SWEEPS}", {"a.edf": clicks(Status=10_000)}, marks=SLOW),
    Case(f"data check a.edf {ABR} {SWEEPS}", {"a.edf": clicks(EEG_Cz=256, EEG_Pz=10_000)}),
    Case(f"data check a.csv {ABR} --set data.split=level", {"a.csv": responses()}),
    Case(f"{ABR} {QUICK} --data a.pkl", {"a.pkl": b"\x80\x04N.", "a.csv": responses()}, marks=SLOW),
]  # fmt: skip

# ---- eeg_text ------------------------------------------------------------------------------------

SENTENCES = "onset_s\tduration_s\ttext\n" + "".join(
    f"{2 * n}\t1.5\tsentence number {n}\n" for n in range(24)
)


def eeg(table=SENTENCES, suffix=".tsv", **rates):
    """A folder with a minute of EEG, and the table of its sentences."""

    def make(path):
        path.mkdir()
        rng = np.random.default_rng(0)
        signals = [
            Signal(name, rate, rng.normal(0, 5, rate * 60))
            for name, rate in (rates or {"Cz": 250, "Pz": 250}).items()
        ]
        write_edf(path / "a.edf", signals, [(2.0 * n, 1.5, f"s{n}") for n in range(24)])
        if table:
            (path / f"a{suffix}").write_text(table)

    return make


def cut(path):
    """A recording whose last seconds were not copied."""
    eeg()(path)
    (path / "a.edf").write_bytes((path / "a.edf").read_bytes()[:-3000])


OF_EEG = [
    Case(f"data check folder {EEG}", {"folder": eeg("")}),
    Case(f"data check folder {EEG}", {"folder": eeg(X1=250, X2=250), "map.json": '{"X1": "Cz", "X2": "Pz"}'}, {"FILE": "map.json"}),
    Case(f"data check folder {EEG}", {"folder": eeg("onset\tduration\tnote\n" + "".join(f"{2 * n}\t1.5\tsentence {n}\n" for n in range(24)), "_events.tsv"), "texts.json": json.dumps({f"s{n}": f"sentence {n}" for n in range(24)})}, {"FILE": "texts.json", "NAME": "note"}),
    Case(f"data check folder {EEG}", {"folder": eeg(Status=250), "map.json": '{"Status": "Cz"}'}, {"FILE": "map.json"}),
    Case(f"data check folder {EEG}", {"folder": eeg(Cz=50, Audio=250), "map.json": '{"Audio": "Cz"}'}, {"FILE": "map.json"}),
    Case(f"data check folder {EEG}", {"folder": cut}),
]  # fmt: skip

# ---- doc_translation -----------------------------------------------------------------------------


def translations(more=""):
    return "\n".join(
        json.dumps(
            {"id": f"ch{n // 4:02}-{n:04}", "en": f"This is text {n}. {more}", "zh": "这是。"}
        )
        for n in range(40)
    )


OF_PAGES = [
    Case(f"data check a.jsonl {PAGES} --set data.seq_len=5000", {"a.jsonl": translations()}),
]  # fmt: skip

CASES = [*OF_LANGUAGE, *OF_EVENTS, *OF_ABR, *OF_EEG, *OF_PAGES]


@pytest.mark.parametrize("case", parameters(CASES))
def test_after_a_line_is_pasted_the_data_is_read(case, pasted):
    assert pasted(case)
