"""BEiT (arXiv 2106.08254)."""
