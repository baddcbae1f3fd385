"""The sets of readers that need no download, made by a simulator."""
