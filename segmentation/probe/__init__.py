"""Read-outs of the patches of a frozen ViT, on features that are extracted once."""
