"""Inference on images of any size, counts, pictures."""
