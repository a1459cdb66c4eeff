"""Files of weights: reading any safely, our own format, loading strictly into a ViT, converting, the public ones."""
