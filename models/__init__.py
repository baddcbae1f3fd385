"""What is learnt: one Task a family, and the person's own."""
