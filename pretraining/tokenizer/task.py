"""Training of the discrete VAE that makes BEiT's tokens, as a Task."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from backbones.param_groups import ParamGroup, exempt_vectors
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import RANDOM
from backbones.weights.normalisation import ZERO_TO_ONE
from classification.config import Augmentation
from classification.data import eval_transform, train_transform
from engine.augment import augment_of
from engine.config import OptimConfig, as_json
from engine.cost import count_flops
from engine.images.reading import evenly_spaced
from engine.records.results_file import ImageResult
from engine.task import Facts
from pretraining.beit.data import CROP_PCT, Images
from pretraining.spec import DVAE
from pretraining.splits import open_splits
from pretraining.tokenizer.config import DVAEConfig
from pretraining.tokenizer.file import TokenizerHeader, write_tokenizer
from pretraining.tokenizer.model import Batch, DiscreteVAE
from pretraining.tokenizer.pictures import draw_codebook, draw_reconstructions

PICTURED = 8  # validation images in the reconstruction picture


class DVAETask:
    """Reconstruction of images from tokens; ends in a tokenizer file."""

    name, primary_metric = DVAE.name, DVAE.primary.name

    def __init__(
        self,
        config: DVAEConfig,
        *,
        model: DiscreteVAE,
        train_data: Images[Tensor],
        val_data: Images[Tensor],
        facts: Facts,
    ) -> None:
        self.config = config
        self.model = model
        self.train_data = train_data
        self.val_data = val_data
        self.facts = facts

    @staticmethod
    def collate(samples: Sequence[tuple[Tensor, str]]) -> Batch:
        """Return pixels (B, C, H, W), uint8, and ids."""
        images, ids = zip(*samples, strict=True)
        return torch.stack(images), list(ids)

    def param_groups(self, optim: OptimConfig) -> list[ParamGroup]:
        """Weight decay on all but biases. Raises ValueError for a layer-wise decay, which has no layers here."""
        if optim.layer_decay != 1:
            raise ValueError(
                f"layer_decay is {optim.layer_decay}; a tokenizer has no layers of a ViT, so it must be 1."
            )
        groups = []
        for free in (False, True):
            named = [(name, p) for name, p in self.model.named_parameters() if exempt_vectors(name, p) is free]
            names, params = zip(*named, strict=True)
            decay = 0.0 if free else optim.weight_decay
            groups.append(ParamGroup(layer=0, lr_scale=1.0, weight_decay=decay, names=names, params=params))
        return groups

    def predict(self, batch: Batch) -> list[ImageResult]:
        """Return each image's tokens, and the squared error of what the decoder makes of them, of pixels 0 to 1."""
        pixel_BCHW, ids = self.model.scale(batch[0]), batch[1]
        token_Bhw = self.model.tokens(pixel_BCHW)
        errors = (self.model.decode(token_Bhw) - pixel_BCHW).square().mean(dim=(1, 2, 3)).tolist()
        tokens = token_Bhw.flatten(1).tolist()
        return [ImageResult(i, {"mse": e, "tokens": t}) for i, e, t in zip(ids, errors, tokens, strict=True)]

    def score(self, results: Sequence[ImageResult]) -> dict[str, float]:
        """Return val_mse, and of the codebook the share in use (percent) and the perplexity of its tokens' shares.

        The perplexity, the exponential of the entropy, is the number of tokens of equal frequency that would say as
        much; that of a collapsed codebook is 1.
        """
        if not results:
            raise ValueError(f"{self.facts.data}: no image of split {self.facts.val_split} could be evaluated.")
        counts = [count for count in self._counts(results) if count]
        total = sum(counts)
        entropy = -sum(count / total * math.log(count / total) for count in counts)
        return {
            "val_mse": sum(r.values["mse"] for r in results) / len(results),
            "codebook_used": 100 * len(counts) / self.config.vocabulary,
            "codebook_perplexity": math.exp(entropy),
        }

    def draw(self, results: Sequence[ImageResult], folder: Path) -> list[Path]:
        """Write reconstructions.png of evenly spaced validation images, and codebook.png."""
        readable = {result.image_id for result in results}
        indices = [i for i in range(len(self.val_data)) if self.val_data.image_id(i) in readable]
        chosen = evenly_spaced(indices, PICTURED)
        pixel_BCHW = self.model.scale(torch.stack([self.val_data[i][0] for i in chosen]).to(self.model.codebook.device))
        self.model.eval()
        metrics = self.score(results)
        return [
            draw_reconstructions(folder / "reconstructions.png", self.model, pixel_BCHW),
            draw_codebook(
                folder / "codebook.png",
                self._counts(results),
                used=metrics["codebook_used"],
                perplexity=metrics["codebook_perplexity"],
            ),
        ]

    def finish(self, folder: Path) -> list[Path]:
        """Write tokenizer.safetensors."""
        path = folder / "tokenizer.safetensors"
        write_tokenizer(path, self.model, _header(self.config))
        return [path]

    def _counts(self, results: Sequence[ImageResult]) -> list[int]:
        """Return how often each token of the codebook occurs."""
        counter = Counter(token for result in results for token in result.values["tokens"])
        return [counter[token] for token in range(self.config.vocabulary)]


def build_task(config: DVAEConfig, *, data: Path, init: InitialWeights | None) -> DVAETask:
    """Return a tokenizer on the images below `data/train`. Raises ValueError for initial weights, which are a ViT's."""
    if init is not None:
        raise ValueError(f"{init.path}: a tokenizer starts from random weights; drop --init.")
    run = config.run
    augment = Augmentation(crop_scale=config.crop_scale, flip=config.flip)
    splits = open_splits(data, config)
    view = train_transform(config.image_size, augment, ZERO_TO_ONE)
    train_data = Images(splits.train, view.pixels, view.changed, augment_of(run))
    val_data = Images(splits.val, eval_transform(config.image_size, CROP_PCT, ZERO_TO_ONE).pixels)
    steps = run.length.steps(batch_size=run.batch_size, dataset_size=len(train_data))
    model = DiscreteVAE(
        vocabulary=config.vocabulary,
        downsampling=config.downsampling,
        code_dim=config.code_dim,
        width=config.width,
        kl_weight=config.kl_weight,
        temperatures=config.temperatures,
        anneal_passes=max(1, round(config.anneal * steps * run.accumulate)),
    )
    example: Batch = (torch.zeros(1, 3, *config.image_size), [])
    facts = Facts(
        data=str(data),
        train_split=splits.train_split,
        val_split=splits.val_split,
        train_images=len(train_data),
        val_images=len(val_data),
        architecture=as_json(_header(config)),
        weights=RANDOM,
        init=None,
        data_notes=splits.notes,
        flops_per_image=count_flops(model, example),
    )
    return DVAETask(config, model=model, train_data=train_data, val_data=val_data, facts=facts)


def _header(config: DVAEConfig) -> TokenizerHeader:
    return TokenizerHeader(
        vocabulary=config.vocabulary,
        downsampling=config.downsampling,
        code_dim=config.code_dim,
        width=config.width,
        image_size=config.image_size,
    )
