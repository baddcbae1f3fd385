"""event_seg family: object edges from the events of an event camera."""
