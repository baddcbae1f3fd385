"""Text as numbers: tokenizers, the form of a dialogue, and the tokens of a whole corpus."""
