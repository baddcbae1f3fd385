"""What is in a file or folder of data, as a family sees it, told and drawn."""
