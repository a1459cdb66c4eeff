"""Pre-training of the shared backbone: MAE, BEiT with its tokenizers, MoCo v3, and from labels."""
