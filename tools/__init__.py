"""The command line: one thin script per job."""
