"""The ViT as a detectron2 backbone, and the detector on it."""

from detection import host as host
