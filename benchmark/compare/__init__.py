"""Records compared: fairness, statistics, published values."""
