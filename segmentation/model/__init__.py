"""The ViT as an mmseg backbone, and the heads on it."""
