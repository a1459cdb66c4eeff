"""The one training loop: configuration, data order, schedule, logging, resume and the record of a run."""

import os

# PyTorch then asks Linux for large pages for its large CPU tensors: a training step makes them anew every time, and
# touching 4 KiB at a time costs more than what is written (docs/performance.md)
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
