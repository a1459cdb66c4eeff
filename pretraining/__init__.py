"""Pre-training of the shared backbone: by reconstructing pixels (MAE) and from labels."""
