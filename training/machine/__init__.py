"""The machine that a run shares with others: its memory, its limits, and what is done at them."""
