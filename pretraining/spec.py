"""What tools, planner, studies and tables know of each way of pre-training."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classification.config import ClassificationConfig
from classification.spec import CLASSIFICATION
from engine.spec import Scores, TaskSpec
from metrics.accuracy import TOP1
from metrics.metric import Metric, error
from pretraining.beit.config import BEiTConfig
from pretraining.mae.config import MAEConfig
from pretraining.moco_v3.config import MoCoConfig
from pretraining.recipes import RECIPES
from pretraining.tokenizer.config import DVAEConfig

if TYPE_CHECKING:
    from backbones.weights.declaration import InitialWeights
    from engine.memory.plan import Plannable


def _adopt(config: Any, *, init: "InitialWeights | None", data: Path, out: Path, resume: bool) -> Any:
    """Give the configuration the statistics of the images where it asks for them."""
    if init is not None and init.architecture != "recipe":
        raise ValueError(f"--init-architecture {init.architecture}: this tool builds the recipe's ViT alone.")
    if not getattr(config, "statistics", False):
        return config
    from pretraining.statistics import with_statistics

    return with_statistics(config, data=data, out=out, resume=resume, init=init)


def _plan(config: Any, *, classes: int, masks: bool) -> Callable[[], "Plannable"]:
    from pretraining.plan import builder

    return builder(config)


def _spec(name: str, config: type[Any], module: str, *metrics: Metric, **more: Any) -> TaskSpec:
    return TaskSpec(
        name=name,
        tool="pretrain",
        config=config,
        recipes={key: recipe for key, recipe in RECIPES.items() if type(recipe()) is config},
        module=f"pretraining.{module}",
        adopt=_adopt,
        scores=(Scores(kind=name, label=name, metrics=metrics),),
        transfers=False,
        augments=True,
        **{"plan": _plan, **more},
    )


MAE = _spec("mae", MAEConfig, "mae.task", error("val_loss"), reads_tokenizer=True)
BEIT = _spec(
    "beit",
    BEiTConfig,
    "beit.task",
    Metric(name="token_accuracy"),
    error("val_loss", unit="nats"),
    Metric(name="constant_accuracy"),
    reads_tokenizer=True,
)
DVAE = _spec("dvae", DVAEConfig, "tokenizer.task", error("val_mse"))
MOCO_V3 = _spec("moco_v3", MoCoConfig, "moco_v3.task", error("val_loss"), least_batch=2)  # batch norm
# classification from random weights
SUPERVISED = _spec(
    "supervised",
    ClassificationConfig,
    "supervised",
    TOP1,
    plan=CLASSIFICATION.plan,
    classes=CLASSIFICATION.classes,
    trained=CLASSIFICATION.trained,
)
