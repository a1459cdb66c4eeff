"""Semantic segmentation: the ViT under UPerNet, a linear map or EoMT, on mmsegmentation's transforms and data."""
