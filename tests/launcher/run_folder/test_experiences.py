import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.run_folder import experiences, run_folder
from gearshift.launcher.run_folder.experiences import Experience, Ledger
from gearshift.launcher.run_folder.file_records import FileRecord

FILE = FileRecord(3, 5, "x")


def experience(number, state="trained", begun=0, ended=None):
    return Experience(number, {f"{number}.txt": FILE}, state, begun, ended)


LEDGER = Ledger(
    [experience(0, ended=10), experience(1, begun=10, ended=20), experience(2, "training", 20)]
)


def test_a_saved_ledger_loads_unchanged(tmp_path):
    assert experiences.load(tmp_path) is None
    LEDGER.save(tmp_path)
    assert experiences.load(tmp_path) == LEDGER
    assert [path.name for path in tmp_path.iterdir()] == ["experiences.json"]


@pytest.mark.parametrize("text", ["", '{"experiences": [{"files": {}}]}'])
def test_an_invalid_file_raises_an_error_that_names_it(tmp_path, text):
    (tmp_path / run_folder.EXPERIENCES).write_text(text)
    with pytest.raises(SettingsError, match=r"experiences\.json"):
        experiences.load(tmp_path)


def test_the_files_of_a_postponed_experience_are_not_known():
    ledger = LEDGER.updated(experience(2, "postponed", 20))
    assert list(ledger.known_files()) == ["0.txt", "1.txt"]
    assert ledger.postponed.number == 2 and ledger.unfinished is None


@pytest.mark.parametrize(
    ("step", "states"),
    [
        (25, ["trained", "trained", "training"]),
        (20, ["trained", "trained"]),
        (15, ["trained", "training"]),
    ],
)
def test_rewinding_drops_experiences_that_started_later(step, states):
    assert [experience.state for experience in LEDGER.rewound_to(step).experiences] == states
