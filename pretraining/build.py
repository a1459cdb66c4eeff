"""From a pre-training recipe to its task: one line for every type of configuration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pretraining.beit_task
import pretraining.dvae_task
import pretraining.moco_task
import pretraining.supervised
import pretraining.task
from backbones.declaration import InitialWeights
from classification.config import ClassificationConfig
from engine.task import Task
from pretraining.beit_config import BEiTConfig
from pretraining.config import MAEConfig
from pretraining.dvae_config import DVAEConfig
from pretraining.moco_config import MoCoConfig

BUILD: dict[type[Any], Callable[..., Task]] = {
    MAEConfig: pretraining.task.build_task,
    ClassificationConfig: pretraining.supervised.build_task,
    BEiTConfig: pretraining.beit_task.build_task,
    DVAEConfig: pretraining.dvae_task.build_task,
    MoCoConfig: pretraining.moco_task.build_task,
}


def build_task(config: Any, *, data: Path, init: InitialWeights | None, trust_tokenizer: bool = False) -> Task:
    """Return the task that the configuration is of.

    `trust_tokenizer` is the command line's word that pickles of a tokenizer may run. A configuration may come from a
    record or a config.json, so what it says of trust is not asked.
    """
    trust = {"trust_tokenizer": trust_tokenizer} if isinstance(config, MAEConfig | BEiTConfig) else {}
    return BUILD[type(config)](config, data=data, init=init, **trust)
