"""Data sets as people have them, turned into the layouts that the tools read."""
