"""Procedural scenes, deterministic from a seed, written as ImageFolder, COCO and ADE20K data.

They stand in for ImageNet, COCO and ADE20K where those are not at hand, so that the same loaders, recipes and
evaluators run end to end. No paper: the layouts are the real ones, the pictures are ours.
"""
