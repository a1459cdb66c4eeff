"""Recipes of detection, a module per source."""
