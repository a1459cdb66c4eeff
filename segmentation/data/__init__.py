"""Layouts, label maps, classes: reading, checking, converting."""
