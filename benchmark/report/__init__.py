"""The comparison in words, tables, pictures and a page."""
