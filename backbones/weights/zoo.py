"""The public ViT checkpoints: where each is published, what is in it, and the command that converts it.

Every fact is from the publisher's repository, the author's answer in its issues, the model's card on the Hugging Face
hub or timm's table of weights; None stands for what none of them says. Nothing here is used to guess on loading: the
source of a file is declared by the user.
"""

from dataclasses import replace

from backbones.weights.zoo_entry import HALF, Contents, PublicCheckpoint
from backbones.weights.zoo_towers import dinov2, towers

# github.com/facebookresearch/mae: README, FINETUNE.md, the demo notebook; issue 3 (visualize), issue 8 (full).
_MAE_URL = "https://dl.fbaipublicfiles.com/mae"
_MAE_SIZES = {"base": "vit_base_patch16", "large": "vit_large_patch16", "huge": "vit_huge_patch14"}
_MAE_MD5 = {"base": ("8cad7c", "1b25e9"), "large": ("b8b06e", "51f550"), "huge": ("9bdbb0", "2541f2")}


def _mae() -> list[PublicCheckpoint]:
    found = []
    for size, architecture in _MAE_SIZES.items():
        pretrained, finetuned = _MAE_MD5[size]
        encoder = PublicCheckpoint(
            name=f"mae_pretrain_vit_{size}.pth",
            source="mae",
            architecture=architecture,
            url=f"{_MAE_URL}/pretrain/mae_pretrain_vit_{size}.pth",
            contents="encoder",
            normalised_target="yes",
            data="ImageNet-1K",
            epochs=1600,
            licence="CC-BY-NC-4.0",
            md5=pretrained,
        )
        full = f"mae_pretrain_vit_{size}_full.pth"
        visualize = f"mae_visualize_vit_{size}.pth"
        tuned = f"mae_finetuned_vit_{size}.pth"
        decoder = replace(encoder, contents="encoder and decoder", epochs=None, md5=None)
        shown = replace(decoder, name=visualize, url=f"{_MAE_URL}/visualize/{visualize}", normalised_target="no")
        found += [encoder, replace(decoder, name=full, url=f"{_MAE_URL}/pretrain/{full}"), shown]
        if size == "large":
            gan = "mae_visualize_vit_large_ganloss.pth"
            found.append(replace(shown, name=gan, url=f"{_MAE_URL}/visualize/{gan}"))
        url = f"{_MAE_URL}/finetune/{tuned}"
        found.append(replace(encoder, name=tuned, url=url, contents="fine-tuned", md5=finetuned))
        # the same weights as timm publishes them (timm/models/vision_transformer.py)
        timm = f"timm/vit_{size}_patch{architecture[-2:]}_224.mae"
        url = f"https://huggingface.co/{timm}"
        found.append(replace(encoder, name=timm, file="model.safetensors", source="timm", url=url, md5=None))
    return found


# github.com/facebookresearch/deit, README_deit.md; normalisation from timm's table. "300 epochs" is said of Ti and S.
_DEIT = (
    ("deit_tiny_patch16_224-a1311bcf.pth", 300),
    ("deit_small_patch16_224-cd65a155.pth", 300),
    ("deit_base_patch16_224-b5f2ef4d.pth", None),
    ("deit_tiny_distilled_patch16_224-b40b3cf7.pth", None),
    ("deit_small_distilled_patch16_224-649709d9.pth", None),
    ("deit_base_distilled_patch16_224-df68dfff.pth", None),
    ("deit_base_patch16_384-8de9b5d1.pth", None),
    ("deit_base_distilled_patch16_384-d0272ac0.pth", 1000),
)

# timm's table of weights (timm/models/vision_transformer.py), from "How to train your ViT?" (arXiv 2106.10270).
_AUGREG_URL = "https://storage.googleapis.com/vit_models/augreg"
_IN21K = "ImageNet-21K"
_IN21K_1K = "ImageNet-21K, then ImageNet-1K"
_AUGREG_21K = (
    ("vit_tiny_patch16", "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0", "0.03"),
    ("vit_small_patch16", "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0", "0.03"),
    ("vit_base_patch16", "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0", "0.01"),
    ("vit_base_patch8", "B_8-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0", "0.01"),
    ("vit_large_patch16", "L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1", "0.01"),
)
_AUGREG_1K = (
    ("vit_small_patch16", "S_16-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0"),
    ("vit_base_patch16", "B_16-i1k-300ep-lr_0.001-aug_strong2-wd_0.1-do_0.1-sd_0.1"),
)


def _deit() -> list[PublicCheckpoint]:
    return [
        PublicCheckpoint(
            name=name,
            source="timm",
            architecture=f"vit_{name.split('_')[1]}_patch16",
            url=f"https://dl.fbaipublicfiles.com/deit/{name}",
            contents="fine-tuned",
            normalised_target="not applicable",
            data="ImageNet-1K",
            epochs=epochs,
            licence="Apache-2.0",
        )
        for name, epochs in _DEIT
    ]


def _augreg() -> list[PublicCheckpoint]:
    files = [(architecture, f"{stem}.npz", _IN21K) for architecture, stem, _ in _AUGREG_21K]
    files += [
        (architecture, f"{stem}--imagenet2012-steps_20k-lr_{lr}-res_224.npz", _IN21K_1K)
        for architecture, stem, lr in _AUGREG_21K
    ]
    files += [
        (architecture, f"{stem}--imagenet2012-steps_20k-lr_0.01-res_224.npz", "ImageNet-1K")
        for architecture, stem in _AUGREG_1K
    ]
    return [
        PublicCheckpoint(
            name=name,
            source="augreg",
            architecture=architecture,
            url=f"{_AUGREG_URL}/{name}",
            contents="fine-tuned",
            normalised_target="not applicable",
            data=data,
            epochs=300,
            licence="Apache-2.0",
            mean=HALF[0],
            std=HALF[1],
        )
        for architecture, name, data in files
    ]


# github.com/microsoft/unilm, beit/README.md: names, 0.5 as mean and std; 150 epochs is said of the base model.
_BEIT: tuple[tuple[str, str, Contents, str], ...] = (
    ("base_patch16_224_pt22k", "vit_base_patch16", "encoder", "ImageNet-22K"),
    ("large_patch16_224_pt22k", "vit_large_patch16", "encoder", "ImageNet-22K"),
    ("base_patch16_224_pt22k_ft22k", "vit_base_patch16", "fine-tuned", "ImageNet-22K"),
    ("large_patch16_224_pt22k_ft22k", "vit_large_patch16", "fine-tuned", "ImageNet-22K"),
    ("base_patch16_224_pt22k_ft1k", "vit_base_patch16", "fine-tuned", "ImageNet-22K, then ImageNet-1K"),
    ("large_patch16_224_pt22k_ft1k", "vit_large_patch16", "fine-tuned", "ImageNet-22K, then ImageNet-1K"),
    ("base_patch16_224_pt22k_ft22kto1k", "vit_base_patch16", "fine-tuned", "ImageNet-22K, then ImageNet-1K"),
    ("base_patch16_384_pt22k_ft22kto1k", "vit_base_patch16", "fine-tuned", "ImageNet-22K, then ImageNet-1K"),
    ("large_patch16_224_pt22k_ft22kto1k", "vit_large_patch16", "fine-tuned", "ImageNet-22K, then ImageNet-1K"),
    ("large_patch16_384_pt22k_ft22kto1k", "vit_large_patch16", "fine-tuned", "ImageNet-22K, then ImageNet-1K"),
    ("large_patch16_512_pt22k_ft22kto1k", "vit_large_patch16", "fine-tuned", "ImageNet-22K, then ImageNet-1K"),
)


def _beit() -> list[PublicCheckpoint]:
    return [
        PublicCheckpoint(
            name=f"beit_{name}.pth",
            source="beit",
            architecture=architecture,
            url=f"https://unilm.blob.core.windows.net/beit/beit_{name}.pth",
            contents=contents,
            normalised_target="not applicable",
            data=data,
            epochs=150 if "base" in name else None,
            licence="MIT",
            mean=HALF[0],
            std=HALF[1],
        )
        for name, architecture, contents, data in _BEIT
    ]


# timm/models/beit.py: addresses in comments, mean and std of the entries, licence of the family; epochs are not said.
_BEIT_V2_URL = "https://conversationhub.blob.core.windows.net/beit-share-public/beitv2"
_BEIT_V2_EARLY = "https://github.com/addf400/files/releases/download/BEiT-v2"
_BEIT_V2 = (
    ("pt1k_ft21k", "ImageNet-1K, then ImageNet-21K"),
    ("pt1k_ft1k", "ImageNet-1K"),
    ("pt1k_ft21kto1k", "ImageNet-1K, ImageNet-21K, then ImageNet-1K"),
)


def _beit_v2() -> list[PublicCheckpoint]:
    return [
        PublicCheckpoint(
            name=f"beitv2_{size}_patch16_224_{stage}.pth",
            source="beit",
            architecture=f"vit_{size}_patch16",
            url=f"{_BEIT_V2_URL}/beitv2_{size}_patch16_224_{stage}.pth",
            contents="fine-tuned",
            normalised_target="not applicable",
            data=data,
            epochs=None,
            licence=None,
        )
        for size in ("base", "large")
        for stage, data in _BEIT_V2
    ] + [  # beit2/PRETRAINING.md: addresses, epochs, ImageNet's constants
        PublicCheckpoint(
            name=f"beitv2_{size}_patch16_224_{stage}.pth",
            source="beit",
            architecture=f"vit_{size}_patch16",
            url=f"{_BEIT_V2_EARLY}/beitv2_{size}_patch16_224_{stage}.pth",
            contents="training checkpoint",
            normalised_target="not applicable",
            data="ImageNet-1K",
            epochs=epochs,
            licence=None,
        )
        for size in ("base", "large")
        for stage, epochs in (("pt1k", 1600), ("pt1k_300e", 300))
    ]


# github.com/facebookresearch/ijepa: README (files, epochs), LICENSE, transforms.py (normalisation).
_IJEPA = (
    ("IN1K-vit.h.14-300e", "vit_huge_patch14", "ImageNet-1K", 300),
    ("IN1K-vit.h.16-448px-300e", "vit_huge_patch16", "ImageNet-1K", 300),
    ("IN22K-vit.h.14-900e", "vit_huge_patch14", "ImageNet-22K", 66),
    ("IN22K-vit.g.16-600e", "vit_giant_patch16", "ImageNet-22K", 44),
)


def _ijepa() -> list[PublicCheckpoint]:
    return [
        PublicCheckpoint(
            name=f"{name}.pth.tar",
            source="ijepa",
            architecture=architecture,
            url=f"https://dl.fbaipublicfiles.com/ijepa/{name}.pth.tar",
            contents="training checkpoint",
            normalised_target="not applicable",
            data=data,
            epochs=epochs,
            licence="CC BY-NC 4.0",
        )
        for name, architecture, data, epochs in _IJEPA
    ]


# github.com/facebookresearch/moco-v3: CONFIG.md (files, epochs), README (licence), main_moco.py (normalisation).
_MOCO_V3 = (("vit-s-300ep", "vit_small_patch16_12heads"), ("vit-b-300ep", "vit_base_patch16"))
# github.com/facebookresearch/dino, README; normalisation and licence from timm's table.
_DINO = (
    ("dino_deitsmall16_pretrain", "vit_small_patch16"),
    ("dino_deitsmall8_pretrain", "vit_small_patch8"),
    ("dino_vitbase16_pretrain", "vit_base_patch16"),
    ("dino_vitbase8_pretrain", "vit_base_patch8"),
)


def _moco_v3() -> list[PublicCheckpoint]:
    return [
        PublicCheckpoint(
            name=f"{name}.pth.tar",
            source="moco_v3",
            architecture=architecture,
            url=f"https://dl.fbaipublicfiles.com/moco-v3/{name}/{name}.pth.tar",
            contents="training checkpoint",
            normalised_target="not applicable",
            data="ImageNet-1K",
            epochs=300,
            licence="CC-BY-NC-4.0",
        )
        for name, architecture in _MOCO_V3
    ]


def _dino() -> list[PublicCheckpoint]:
    variants: tuple[tuple[str, Contents], ...] = (("", "encoder"), ("_full_checkpoint", "training checkpoint"))
    return [
        PublicCheckpoint(
            name=f"{name}{suffix}.pth",
            source="dino",
            architecture=architecture,
            url=f"https://dl.fbaipublicfiles.com/dino/{name}/{name}{suffix}.pth",
            contents=contents,
            normalised_target="not applicable",
            data="ImageNet-1K",
            epochs=None,
            licence="Apache-2.0",
        )
        for name, architecture in _DINO
        for suffix, contents in variants
    ]


# The models' cards and file lists on huggingface.co. The MAE ones are converted from the visualize files
# (transformers, convert_vit_mae_to_pytorch.py), which are under another licence than the cards say.
_MAE_CARD = "Apache-2.0 on the card; converted from CC-BY-NC-4.0 weights"


def _huggingface() -> list[PublicCheckpoint]:
    mae = [
        PublicCheckpoint(
            name=f"facebook/vit-mae-{size}",
            file="pytorch_model.bin",
            source="huggingface",
            architecture=architecture,
            url=f"https://huggingface.co/facebook/vit-mae-{size}",
            contents="encoder and decoder",
            normalised_target="no",
            data="ImageNet-1K",
            epochs=None,
            licence=_MAE_CARD,
        )
        for size, architecture in _MAE_SIZES.items()
    ]
    others: tuple[tuple[str, str, Contents, str], ...] = (
        ("google/vit-base-patch16-224-in21k", "vit_base_patch16", "encoder", _IN21K),
        ("google/vit-large-patch16-224-in21k", "vit_large_patch16", "encoder", _IN21K),
        ("google/vit-huge-patch14-224-in21k", "vit_huge_patch14", "encoder", _IN21K),
        ("google/vit-base-patch16-224", "vit_base_patch16", "fine-tuned", _IN21K_1K),
        ("google/vit-large-patch16-224", "vit_large_patch16", "fine-tuned", _IN21K_1K),
        ("microsoft/beit-base-patch16-224-pt22k", "vit_base_patch16", "encoder", "ImageNet-22K"),
        ("microsoft/beit-large-patch16-224-pt22k", "vit_large_patch16", "encoder", "ImageNet-22K"),
        ("microsoft/beit-base-patch16-224-pt22k-ft22k", "vit_base_patch16", "fine-tuned", "ImageNet-22K"),
        ("microsoft/beit-large-patch16-224-pt22k-ft22k", "vit_large_patch16", "fine-tuned", "ImageNet-22K"),
    )
    return mae + [
        PublicCheckpoint(
            name=name,
            file="pytorch_model.bin",
            source="huggingface",
            architecture=architecture,
            url=f"https://huggingface.co/{name}",
            contents=contents,
            normalised_target="not applicable",
            data=data,
            epochs=None,
            licence="Apache-2.0",
            mean=HALF[0],
            std=HALF[1],
        )
        for name, architecture, contents, data in others
    ]


# detectron2, projects/ViTDet/README.md: Mask R-CNN on COCO, from MAE's pre-trained weights. No licence is stated there.
_VITDET = (
    ("mask_rcnn_vitdet_b/f325346929/model_final_61ccd1.pkl", "vit_base_patch16"),
    ("mask_rcnn_vitdet_l/f325599698/model_final_6146ed.pkl", "vit_large_patch16"),
    ("mask_rcnn_vitdet_h/f329145471/model_final_7224f1.pkl", "vit_huge_patch16"),
)


def _vitdet() -> list[PublicCheckpoint]:
    return [
        PublicCheckpoint(
            name=path.split("/")[-1],
            source="detectron2",
            architecture=architecture,
            url=f"https://dl.fbaipublicfiles.com/detectron2/ViTDet/COCO/{path}",
            contents="fine-tuned",
            normalised_target="yes",
            data="ImageNet-1K, then COCO",
            epochs=1600,
            licence=None,
        )
        for path, architecture in _VITDET
    ]


PUBLIC: tuple[PublicCheckpoint, ...] = (
    *_mae(),
    *_deit(),
    *_augreg(),
    *_beit(),
    *_beit_v2(),
    *_ijepa(),
    *_moco_v3(),
    *_dino(),
    *dinov2(),
    *towers(),
    *_huggingface(),
    *_vitdet(),
)


def find_public(file_name: str, md5: str | None = None) -> PublicCheckpoint | None:
    """Return the entry of that name, or of that MD5 where the file was renamed.

    None where there is none, and where the name's published MD5 is another one: the file is not what its name says.
    """
    for entry in PUBLIC:
        if entry.name == file_name and (md5 is None or entry.md5 is None):
            return entry
        if md5 is not None and entry.md5 is not None and md5.startswith(entry.md5):
            return entry
    return None
