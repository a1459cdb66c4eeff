"""Records compared: fairness, statistics, published values."""

RESAMPLES = 1000  # of the test images, unless another number is asked for
