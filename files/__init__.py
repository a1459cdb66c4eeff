"""Reading and writing files that others made or interrupted: no torch, no knowledge of runs."""
