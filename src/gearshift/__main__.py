"""`python -m gearshift`: the program of `python -m launcher` and of the script `gearshift`."""

from gearshift.launcher.__main__ import program

if __name__ == "__main__":
    program()
