"""Image classification on the shared backbone: fine-tuning after MAE, and the same model trained from labels alone."""
