"""Tests of the language family."""
