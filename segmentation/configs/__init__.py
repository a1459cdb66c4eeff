"""Model nodes in mmengine's form."""
