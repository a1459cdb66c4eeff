"""Whether detectron2 is there; what imports it imports this first. Configurations and recipes need neither."""

import importlib.util

from engine.spec import MissingHostError

if importlib.util.find_spec("detectron2") is None:
    raise MissingHostError("detection needs detectron2, which is not installed here")
