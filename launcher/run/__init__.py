"""A run: prepared, executed, supervised and restarted, with one worker per rank."""
