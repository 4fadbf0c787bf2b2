"""Text in: sources, formats, wikitext, sentences and the borders of words."""
