"""The run folder: layout, atomic writes, lock, fencing and result."""
