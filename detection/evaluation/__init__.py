"""Scoring and drawing detections."""
