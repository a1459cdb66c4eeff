"""Metrics on NumPy alone, from what results files keep of each image: accuracy, mIoU, COCO's AP."""
