"""A clock that only moves when seconds are added."""


class Clock:
    """Gives `seconds`, which a test advances."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds
