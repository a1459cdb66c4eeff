"""The one ViT of the project: its family, its checkpoints, its feature maps and its parameter groups."""
