"""What a configuration of before states today. Not a command: studies and exports use it.

The modules are imported where two runs state other fields, since an export needs none of them else.
"""

from importlib import import_module
from typing import Any

from engine.config import with_defaults
from files.typed import from_json

KINDS = {  # by the task of a record
    "mae": ("pretraining.config", "MAEConfig"),
    "beit": ("pretraining.beit_config", "BEiTConfig"),
    "dvae": ("pretraining.dvae_config", "DVAEConfig"),
    "moco_v3": ("pretraining.moco_config", "MoCoConfig"),
    "supervised": ("classification.config", "ClassificationConfig"),
    "classification": ("classification.config", "ClassificationConfig"),
    "detection": ("detection.config", "DetectionConfig"),
    "segmentation": ("segmentation.config", "SegmentationConfig"),
    "knn": ("classification.probe", "ProbeConfig"),
    "linear_features": ("classification.probe", "ProbeConfig"),
}
RESULT = "leading"  # of a probe's record: which outcome its top1 is, which is no setting


def with_later_fields(task: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded configuration with the defaults of the fields that came after it.

    As it is where the task is none of ours, or where the configuration is not readable as one of today.
    """
    if task not in KINDS:
        return config
    module, name = KINDS[task]
    try:
        today = from_json(getattr(import_module(module), name), {k: v for k, v in config.items() if k != RESULT})
    except ValueError:
        return config
    return with_defaults(config, today)
