"""A finished run opened again: evaluation, prediction, export."""
