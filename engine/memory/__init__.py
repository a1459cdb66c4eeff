"""What a training step needs, from fake tensors."""
