"""`python -m gearshift` and the script `gearshift`: the program of `python -m launcher`."""

import signal


def program() -> None:
    """Run the command line of this process and exit with its code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until the program handles Ctrl-C it ends the process: an import would print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from gearshift.launcher import __main__

    __main__.program()


if __name__ == "__main__":
    program()
