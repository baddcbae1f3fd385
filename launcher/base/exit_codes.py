"""What the program's exit code tells the shell, the scheduler and scripts."""

DONE = 0
FAULT = 1
WRONG_WORDS = 2
RUN_AGAIN = 75
INTERRUPTED = 130

MEANINGS = {
    DONE: "done",
    FAULT: "a fault of the program or the run",
    WRONG_WORDS: "your words, settings or data are wrong; nothing was written",
    RUN_AGAIN: "stopped by a signal after saving; run me again",
    INTERRUPTED: "Ctrl-C, after saving",
}
