"""Scoring and drawing detections."""

from detection import host as host
