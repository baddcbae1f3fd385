"""What was wrong once at the edges of the product, one file per kind: odd files, late signals, first guesses."""
