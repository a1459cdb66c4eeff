"""The discrete VAE that makes BEiT's tokens, and DALL-E's."""
