"""Control codes of names and data never reach a terminal."""

import io

from gearshift.training.logging.console_reporter import LogFileOutput, PlainOutput
from gearshift.training.logging.terminal import TerminalOutput
from gearshift.training.storage import Storage

WILD = "a\x1b[31mb\x07c\rd\xa0e\udc80f\u202eg\n\th é 漢"


def test_no_output_passes_control_codes_on(tmp_path):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    plain, terminal = PlainOutput(stream), TerminalOutput(stream)
    log = LogFileOutput(Storage(tmp_path))
    for output in (plain, terminal, log):
        output.write("notice", WILD)
        output.write("warning", f"sample\n| {WILD}")
        output.close()
    stream.seek(0)
    for text in (stream.read(), (tmp_path / "log.txt").read_text()):
        assert text.count("a�[31mb�c d e�f�g") == (4 if text.startswith("a") else 2)
        assert not {"\x1b[31m", "\x07", "\u202e"} & {
            text[i : i + n] for i in range(len(text)) for n in (1, 5)
        }
