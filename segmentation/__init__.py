"""Semantic segmentation: the ViT under UPerNet, on mmsegmentation's models, transforms and data sets."""
