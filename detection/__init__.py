"""Detection and instance segmentation: the ViT in detectron2's Mask R-CNN, which is imported only here."""

import logging
import warnings

# on current PyTorch detectron2 warns of its own code, where a user can do nothing about it
warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated", category=FutureWarning)
warnings.filterwarnings("ignore", message=r"torch\.meshgrid: in an upcoming release", category=UserWarning)
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
