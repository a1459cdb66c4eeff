"""The comparison: a matrix of runs, and tables made from their records alone."""
