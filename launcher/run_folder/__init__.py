"""The run folder: layout, atomic writes, lock, fencing, result, and which checkpoint is resumed."""
