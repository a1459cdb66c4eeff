"""Masked autoencoders (arXiv 2111.06377)."""
