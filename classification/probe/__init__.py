"""Probes of a frozen ViT on features that are extracted once."""
