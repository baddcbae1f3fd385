"""The records of a run and its console: metrics.jsonl, events.jsonl, result.json, log.txt."""
