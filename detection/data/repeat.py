"""Repeat-factor sampling (LVIS, arXiv 1908.03195, appendix B.2): images with a rare class come more often.

The factor of a class is sqrt(threshold / share of images that have it), 1 at least; that of an image is the largest of
its classes. A factor of 2.4 is two or three times by chance. Departure from detectron2: chance decides once, alike for
every run, and not anew in every pass. So the order of images stays a function of seed and position, and runs of several
seeds have passes of one length over the same images.

Axis letters: I images, K classes, P pairs of an image and a class that it has.
"""

import numpy as np


def images_of_classes(pair_P2: np.ndarray, *, classes: int) -> np.ndarray:
    """Return the number of images that have each class, (K,), from the pairs (image, class), each once."""
    return np.bincount(pair_P2[:, 1], minlength=classes)


def repeat_factors(pair_P2: np.ndarray, *, images: int, classes: int, threshold: float) -> np.ndarray:
    """Return how often each image should come in a pass, (I,), 1 at least."""
    share_K = images_of_classes(pair_P2, classes=classes) / images
    factor_K = np.sqrt(threshold / np.maximum(share_K, 1 / images))
    factor_I = np.ones(images)
    np.maximum.at(factor_I, pair_P2[:, 0], factor_K[pair_P2[:, 1]])
    return factor_I


def repeated(factor_I: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return image numbers, ascending, each as often as its factor says; a fraction is a chance."""
    whole_I = np.floor(factor_I)
    times_I = whole_I + (generator.random(len(factor_I)) < factor_I - whole_I)
    return np.repeat(np.arange(len(factor_I)), times_I.astype(np.int64))
