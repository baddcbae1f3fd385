"""Dashboards that show a run while it goes on; none of them can end, block or slow it."""
