"""Readers of pages and their translations, and the rendering of text as pages."""
