"""Readings of a machine for tests."""

CALM = {
    "ram": 40.0,
    "swap": 0.0,
    "gpu": 10.0,
    "cpu": None,
    "gpu_all": 50.0,
    "gpu_busy": None,
}


class SimulatedMonitor:
    """A monitor of a machine that reads `now`; a test sets it, and `new` after an interval."""

    def __init__(self, now):
        self.now, self.new = now, None

    def read(self):
        return self.now

    def start(self):
        """No thread: tests control the interval."""

    stop = start
