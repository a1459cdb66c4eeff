"""COCO and LVIS: reading, checking, mapping to training samples."""

from detection import host as host
