"""Trackers that show a run while it trains; none can end, block or slow it."""
