"""A study: its file, its runs, what is wrong with it, the search of learning rates."""
