"""The doc_translation family: a page image in, its translation as Markdown out."""
