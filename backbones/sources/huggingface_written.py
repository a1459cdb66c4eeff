"""The two files beside weights in transformers' names, so that `from_pretrained(FOLDER)` builds the model they fit.

What no tensor tells is said: the heads of a decoder are the 16 of MAE's (arXiv 2111.06377, appendix A.1), and whether
its targets were normalised is left at transformers' `norm_pix_loss` false, which the files for visualisation have.
"""

import json
from pathlib import Path
from typing import Any

from backbones.layers import LAYER_NORM_EPS
from backbones.sources.huggingface_config import CONFIG, PIXELS, RESCALE
from backbones.weights.checkpoint import Checkpoint
from files.writing import replacing

WEIGHTS = "model.safetensors"  # what from_pretrained looks for
BESIDE = (CONFIG, PIXELS)
DECODER_HEADS = 16
BICUBIC = 3  # Pillow's number, as transformers writes it


def model_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return config.json for a checkpoint that `backbones.sources.huggingface.restore` takes.

    Raises ValueError for a decoder whose width 16 heads do not divide.
    """
    a, state = checkpoint.architecture, checkpoint.state
    height, width = a.image_size
    config: dict[str, Any] = {
        "hidden_size": a.embed_dim,
        "num_hidden_layers": a.depth,
        "num_attention_heads": a.num_heads,
        "intermediate_size": a.mlp_width,
        "hidden_act": "gelu",
        "layer_norm_eps": LAYER_NORM_EPS,
        "image_size": height if height == width else [height, width],
        "patch_size": a.patch_size,
        "num_channels": a.in_chans,
    }
    labels = state["head.weight"].shape[0] if "head.weight" in state else 0
    if labels:  # as transformers names labels that it does not know
        config["id2label"] = {str(label): f"LABEL_{label}" for label in range(labels)}
        config["label2id"] = {name: int(label) for label, name in config["id2label"].items()}
    task = "ForImageClassification" if labels else "Model"
    if a.layer_scale is not None or a.qkv_bias == "qv" or a.relative_position != "none":
        return config | {
            "model_type": "beit",
            "architectures": [f"Beit{task}"],
            "layer_scale_init_value": 0.1 if a.layer_scale is not None else 0.0,  # above 0: there is one
            "use_absolute_position_embeddings": "pos_embed" in state,
            "use_relative_position_bias": a.relative_position == "table",
            "use_shared_relative_position_bias": a.relative_position == "shared_table",
            "use_mean_pooling": "fc_norm.weight" in state,
            "use_mask_token": False,
        }
    if "decoder_pred.weight" not in state:
        return config | {"model_type": "vit", "architectures": [f"ViT{task}"], "qkv_bias": True}
    decoder = state["decoder_embed.weight"].shape[0]
    if decoder % DECODER_HEADS:
        raise ValueError(
            f"{checkpoint.path}: its decoder is {decoder} wide, which MAE's {DECODER_HEADS} heads do not divide, "
            f"and no tensor tells how many it has. Leave it out (--encoder-only), or write {CONFIG} by hand."
        )
    return config | {
        "model_type": "vit_mae",
        "architectures": ["ViTMAEForPreTraining"],
        "qkv_bias": True,
        "decoder_hidden_size": decoder,
        "decoder_num_attention_heads": DECODER_HEADS,
        "decoder_num_hidden_layers": len({n.split(".")[1] for n in state if n.startswith("decoder_blocks.")}),
        "decoder_intermediate_size": state["decoder_blocks.0.mlp.fc1.weight"].shape[0],
        "norm_pix_loss": False,
    }


def pixel_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return preprocessor_config.json: scaled to 0..1, normalised with the constants of the weights."""
    height, width = checkpoint.architecture.image_size
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": RESCALE,
        "do_normalize": True,
        "image_mean": list(checkpoint.normalisation.mean),
        "image_std": list(checkpoint.normalisation.std),
    }


def check_folder(checkpoint: Checkpoint, folder: Path) -> dict[Path, str]:
    """Return the files to write and their text. Raises ValueError where one is there already and says otherwise."""
    contents = {folder / CONFIG: model_config(checkpoint), folder / PIXELS: pixel_config(checkpoint)}
    texts = {path: json.dumps(content, indent=2) + "\n" for path, content in contents.items()}
    for path, text in texts.items():
        if path.exists() and path.read_bytes() != text.encode():
            raise ValueError(
                f"{path}: is there already and says otherwise than these weights need; give --out in a folder of their "
                "own, or move it away."
            )
    return texts


def write_texts(texts: dict[Path, str]) -> None:
    """Write the files, each by a temporary file and a rename."""
    for path, text in texts.items():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def remarks(checkpoint: Checkpoint, path: Path) -> list[str]:
    """Return lines on what was written beside `path`, and on what `from_pretrained` asks for."""
    config = model_config(checkpoint)
    model = config["architectures"][0]
    lines = [f"{CONFIG} ({model}) and {PIXELS} are beside it"]
    if model == "ViTModel":
        lines.append("ViTModel.from_pretrained(FOLDER, add_pooling_layer=False): there is no pooler in the weights")
    if model == "ViTMAEForPreTraining":
        lines.append(
            f"{DECODER_HEADS} heads of the decoder are MAE's, no tensor tells them; norm_pix_loss is false: set it in "
            f"{CONFIG} where the targets were normalised (the loss alone depends on it)"
        )
    if path.name != WEIGHTS:
        lines.append(f"from_pretrained looks for {WEIGHTS}: rename {path.name}")
    return lines
