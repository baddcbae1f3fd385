"""doc_translation family: page images to their translation as Markdown."""
