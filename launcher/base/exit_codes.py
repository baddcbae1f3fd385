"""The program's exit codes, for the shell, the scheduler and scripts."""

DONE = 0
FAILURE = 1
INVALID_INPUT = 2
RUN_AGAIN = 75
INTERRUPTED = 130

MEANINGS = {
    DONE: "done",
    FAILURE: "the program or the run failed",
    INVALID_INPUT: "invalid arguments, settings or data; nothing was written",
    RUN_AGAIN: "stopped by a signal or a limit after saving; run again",
    INTERRUPTED: "Ctrl-C, after saving",
}
