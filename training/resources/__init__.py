"""The resources of the machine: monitoring, limits, throttling and running out of memory."""
