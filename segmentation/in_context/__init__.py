"""Masks and boxes of an object in images that no model was trained on, from examples of it."""
