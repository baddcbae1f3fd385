"""Scripts for developers and continuous integration."""
