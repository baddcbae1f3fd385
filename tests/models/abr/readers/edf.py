"""A recording in EDF+ written byte by byte, as the tests need it."""

from tests.edges.edf_files import edf_head

RATE = 10_000
RANGE_UV = 500.0


def write_edf(path, seconds, rate=RATE, room=1_000):
    """Each second: [rate] samples in µV, and the onset and text of its annotations.

    `room`, an even number, is the bytes of a second's annotations.
    Source: Kemp and Olivan, European data format 'plus', 2003.
    """
    with path.open("wb") as file:
        file.write(b" " * 768)
        records = 0
        for records, (signal, events) in enumerate(seconds, start=1):
            file.write((signal / RANGE_UV * 32767).astype("<i2").tobytes())
            tal = f"+{records - 1}\x14\x14\0"
            tal += "".join(f"+{onset:.4f}\x14{text}\x14\0" for onset, text in events)
            file.write(tal.encode().ljust(room, b"\0"))
        file.seek(0)
        signal = ("Cz", "uV", -RANGE_UV, RANGE_UV, -32767, 32767, rate)
        notes = ("EDF Annotations", "", -1, 1, -32768, 32767, room // 2)
        file.write(edf_head(records, [signal, notes], kind="EDF+C"))
    return path
