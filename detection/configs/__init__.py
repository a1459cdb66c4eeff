"""Models assembled from detectron2's parts, one file per model."""
