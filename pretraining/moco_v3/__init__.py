"""MoCo v3 (arXiv 2104.02057)."""
