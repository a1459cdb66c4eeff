"""Carrying a study out: here or on a cluster."""
