"""The ViT as a detectron2 backbone, and the detector on it."""
