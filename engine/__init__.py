"""The one training loop: configuration, data order, schedule, logging, resume and the record of a run."""
