"""COCO and LVIS: reading, checking, mapping to training samples."""
