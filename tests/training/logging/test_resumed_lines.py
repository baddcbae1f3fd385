"""What a resumed run lost counts as far as it was logged."""

import json

from gearshift.training.logging.resumed_lines import lost_s


def test_the_seconds_of_logged_steps_after_a_checkpoint_are_lost(tmp_path):
    assert lost_s(tmp_path, 3) == 0.0
    lines = [
        {"kind": "train", "step": 2, "step_time_s": 5.0},
        {"kind": "train", "step": 4, "step_time_s": 2.0},
        {"kind": "eval", "step": 4},
        {"kind": "train", "step": 8, "step_time_s": 0.5},
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"kind": "tra')
    # One step of the line at step 4 is after step 3, then four of half a second.
    assert lost_s(tmp_path, 3) == 2.0 + 4 * 0.5
