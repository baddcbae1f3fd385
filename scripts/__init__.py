"""What people and continuous integration run on this tree."""
