"""The params.json of pytorch-reid (xuxu116/pytorch-reid-lite, commit cb2c53c) as a recipe's tables."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tag_core.catalog import did_you_mean
from tag_core.errors import ConfigError, UserError
from tag_core.typed import check_type

Tables = dict[str, Any]
Count = Annotated[int, Field(ge=1)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
KEYS: dict[str, tuple[Any, Any]] = {
    "batch_sampling_params.K": (Count, 4),
    "batch_sampling_params.P": (Count, 32),
    "batch_sampling_params.batch_size": (Count, 32),
    "batch_sampling_params.class_balanced": (bool, False),
    "batches_dir": (str, ""),
    "data_augmentation.colour_jitering": (bool, False),
    "data_augmentation.colour_jiterring": (bool, False),
    "data_augmentation.crop_h": (int, 0),
    "data_augmentation.crop_w": (int, 0),
    "data_augmentation.mirror": (bool, True),
    "data_augmentation.random_erasing": (bool, False),
    "data_augmentation.rotation": (Number, 0),
    "epochs": (Count, 30),
    "evaluation_params.type": (str | None, "market_evaluate"),
    "evaluation_params.step": (int | None, None),
    "fine_tune": (bool, False),
    "imagenet_pretrain": (bool, True),
    "img_h": (Count, 384),
    "img_w": (Count, 128),
    "lr.base_lr": (Number, 0.01),
    "lr.fc_lr": (Annotated[float, Field(gt=0, allow_inf_nan=False)], 0.1),
    "lr.decay_gamma": (Number, 0.1),
    "lr.decay_step": (Count, 10),
    "model_params.feature_dim": (Count, 1536),
    "model_params.model": (
        Literal["resnet_18", "resnet_34", "resnet_50", "resnet_101", "resnet_152"],
        "resnet_50",
    ),
    "model_params.pcb_n_parts": (Annotated[int, Field(ge=0)], 6),
    "num_preprocess_workers": (Annotated[int, Field(ge=0)], 4),
    "optimizer": (str, "sgd"),
    "parallels": (list[int], [0, 1]),
    "pretrain_snapshot": (str | None, ""),
    "tri_loss_params.margin": (Number | Literal["soft_margin"], 0),
    "tri_loss_params.use_adaptive_weight": (bool, True),
    "tri_loss_params.lambda_tri": (Number, 10),
    "tri_loss_params.lambda_cls": (Number, 0),
    "weight_decay": (Number, 4e-5),
    "working_dir": (str, ""),
}
"""Key -> (type, default)."""
OLDER = {
    "batch_size": "batch_sampling_params.batch_size",
    "epoch": "epochs",
    "tri_loss_margin": "tri_loss_params.margin",
    "tri_loss_lambda_cls": "tri_loss_params.lambda_cls",
}
"""Spellings of its README -> key."""
OPTIMIZERS: dict[str, Tables] = {
    "sgd": {"name": "core/sgd", "momentum": 0.9},
    "nesterov": {"name": "core/sgd", "momentum": 0.9, "nesterov": True},
    "adam": {"name": "core/adam"},
    "amsgrad": {"name": "core/adam", "amsgrad": True},
    "rmsprop": {"name": "core/rmsprop", "momentum": 0.9},
}
LOST = {
    "data_augmentation.colour_jitering": "has no effect in pytorch-reid, which reads colour_jiterring; for what it "
    "means, add 'reid/color-jitter' to data.train.transforms",
    "data_augmentation.crop_h": "has no effect in pytorch-reid; to shift pictures add 'reid/pad-crop'",
    "data_augmentation.crop_w": "has no effect in pytorch-reid; to shift pictures add 'reid/pad-crop'",
    "evaluation_params.step": "is not carried over: Tag validates after epochs, train.validate_every",
    "parallels": "batch_size is multiplied by the number of these GPUs, as in pytorch-reid; which ones is not carried "
    "over: tag-run train OUT.toml --procs N",
    "pretrain_snapshot": "is not carried over: its layers have other names; weights=FILE reads torchvision's and Tag's",
    "working_dir": "is not carried over: tag-run train OUT.toml --out FOLDER",
}
"""Key -> what becomes of it."""


def read_params(path: Path) -> tuple[Tables, dict[str, str]]:
    """The recipe's tables; and for each key that is lost, changed or unknown, why.

    Raises:
        UserError: the file cannot be read, or is no JSON object.
        ConfigError: values of a wrong type or size, all of them.
    """
    given, remarks = _checked(path)
    values = {key: given.get(key, default) for key, (_, default) in KEYS.items()}
    tables, changed = to_recipe(values)
    known = {key: why for key, why in {**LOST, **changed}.items() if given.get(key, "") not in (None, "")}
    if not values["batches_dir"]:
        known["batches_dir"] = "is not there; data.train.source=FOLDER names the training data"
    known |= {key: changed[key] for key in ("evaluation_params.type", "model_params.pcb_n_parts") if key in changed}
    return tables, known | remarks


def to_recipe(values: Mapping[str, Any]) -> tuple[Tables, dict[str, str]]:
    """The tables for a value of every key; and remarks by key."""
    margin = values["tri_loss_params.margin"]
    triplets = margin == "soft_margin" or margin > 0
    balanced = triplets or values["batch_sampling_params.class_balanced"]
    resize = {"name": "reid/resize", "size": [values["img_h"], values["img_w"]]}
    source = values["batches_dir"]
    mapping = os.path.isfile(os.path.join(source, "class_mapping.json"))
    data = {"name": "reid/class-mapping" if mapping else "reid/folder", **({"source": source} if source else {})}
    together = values["batch_sampling_params.batch_size"] * len(values["parallels"])
    images = values["batch_sampling_params.K"] * values["batch_sampling_params.P"]
    tables: Tables = {
        "summary": "From a params.json of pytorch-reid",
        "metrics": [{"name": "reid/market", "ap": "trapezoid"}],
        "task": _task(values, triplets),
        "data": {
            "train": {**data, "transforms": [resize, *_augmentation(values)]},
            "val": {"transforms": [resize]},
            "test": {},
        },
        "optimizer": _optimizer(values),
        "schedule": {
            "name": "core/step",
            "every": values["lr.decay_step"],
            "gamma": values["lr.decay_gamma"],
            "unit": "step" if balanced else "epoch",
        },
        "train": {
            "epochs": values["epochs"],
            "batch_size": images if balanced else together,
            "workers": values["num_preprocess_workers"],
            "drop_last": balanced,
            "best": "rank1",
        },
    }
    if balanced:
        tables["sampler"] = {"name": "reid/identities", "num_instances": values["batch_sampling_params.K"]}
    return tables, dict(_remarks(values, triplets, balanced))


CAMERAS = {"market_evaluate": r"c(\d)", "msmt_evaluate": r"^[^_]*_[^_]*_(\d+)"}
"""Kind of evaluation -> the camera in a file's name."""


def _task(values: Mapping[str, Any], triplets: bool) -> Tables:
    depth = int(values["model_params.model"].removeprefix("resnet_"))
    backbone = {"name": "reid/resnet", "depth": depth, "last_stride": 2, "pretrained": values["imagenet_pretrain"]}
    task: Tables = {"backbone": backbone, "loss": _loss(values, triplets)}
    parts, dim = values["model_params.pcb_n_parts"], values["model_params.feature_dim"]
    if not parts:
        return {"name": "reid/embedding", "neck": "linear", "dim": dim, **task}
    plain = {"stripes": "chunk", "shared": False, "norm": False, "dropout": 0.0, "dropout_after": 0.5}
    return {"name": "reid/pcb", "parts": parts, "dim": dim // parts, **plain, **task}


def _loss(values: Mapping[str, Any], triplets: bool) -> Tables:
    if not triplets:
        return {"name": "core/cross-entropy"}
    margin = values["tri_loss_params.margin"]
    triplet = {"name": "reid/triplet", "margin": "soft" if margin == "soft_margin" else float(margin)}
    triplet["adaptive_weights"] = values["tri_loss_params.use_adaptive_weight"]
    if not values["tri_loss_params.lambda_cls"]:
        return triplet
    weights = [float(values["tri_loss_params.lambda_cls"]), float(values["tri_loss_params.lambda_tri"])]
    return {"name": "reid/sum", "weights": weights, "losses": [{"name": "core/cross-entropy"}, triplet]}


def _augmentation(values: Mapping[str, Any]) -> Iterator[Tables]:
    if values["data_augmentation.mirror"]:
        yield {"name": "reid/flip"}
    if degrees := values["data_augmentation.rotation"]:
        yield {"name": "reid/affine", "degrees": float(degrees)}
    if values["data_augmentation.colour_jiterring"]:
        yield {"name": "reid/color-jitter", "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.0}
    if values["data_augmentation.random_erasing"]:
        yield {"name": "reid/random-erasing", "p": 0.6, "area": [0.02, 0.1], "aspect": [0.3, 3.33], "fill": [0, 0, 0]}


def _optimizer(values: Mapping[str, Any]) -> Tables:
    lr, backbone = values["lr.fc_lr"], values["lr.base_lr"]
    factor = 0.0 if values["fine_tune"] else round(backbone / lr, 12)
    chosen = OPTIMIZERS.get(values["optimizer"], OPTIMIZERS["sgd"])
    decay = {"weight_decay": values["weight_decay"], "decay_norm_and_bias": True}
    return {**chosen, "lr": lr, "lr_factors": {"backbone": factor}, **decay}


def _remarks(values: Mapping[str, Any], triplets: bool, balanced: bool) -> Iterator[tuple[str, str]]:
    """Of these values."""
    if balanced:
        yield "batch_sampling_params.batch_size", "has no effect: a batch has P x K pictures"
        yield "parallels", "which GPUs is not carried over: tag-run train OUT.toml --procs N"
        yield "epochs", "P x K batches never end in pytorch-reid; here they end after these epochs"
    else:
        for name in ("K", "P"):
            yield f"batch_sampling_params.{name}", "has no effect without class_balanced or a triplet margin"
    if not triplets:
        for name in ("use_adaptive_weight", "lambda_tri", "lambda_cls"):
            yield f"tri_loss_params.{name}", "has no effect while the triplet margin is 0"
    elif not values["tri_loss_params.lambda_cls"]:
        yield "tri_loss_params.lambda_tri", "has no effect while lambda_cls is 0: the triplets are the whole loss"
    if triplets and values["model_params.pcb_n_parts"]:
        told = "pytorch-reid does not combine stripes with triplets; here they compare all stripes' numbers in a row"
        yield "model_params.pcb_n_parts", told
    if values["fine_tune"]:
        yield "lr.base_lr", "has no effect with fine_tune, which freezes the backbone"
    if values["optimizer"] not in OPTIMIZERS:
        yield "optimizer", "is taken for sgd, as there"
    if camera := CAMERAS.get(kind := values["evaluation_params.type"]):
        paths = f"data.val.source=.../query data.val.gallery=.../gallery data.val.camera='{camera}'"
        told = f"reads query/ and gallery/ from a folder that stands in its code; give {paths}"
        yield "evaluation_params.type", f"{told}, else a fifth of the training data is held out"
    else:
        told = "becomes that of held-out training data by reid/market"
        yield "evaluation_params.type", f"{kind or 'no evaluation'} {told}"


def _checked(path: Path) -> tuple[Tables, dict[str, str]]:
    """What the file gives, by key; and remarks on the keys that it should not."""
    given: Tables = {}
    problems: list[str] = []
    remarks: dict[str, str] = {}
    for key, value in _flat(_read(path), problems):
        known = OLDER.get(key, key)
        if known not in KEYS:
            table = key.rpartition(".")[0]
            near = [each for each in (*KEYS, *OLDER) if not table or each.startswith(f"{table}.")]
            remarks[key] = f"is not carried over: unknown{did_you_mean(key, near)}"
        elif known in given:
            remarks[key] = f"has no effect beside {known}"
        else:
            try:
                given[known] = check_type(KEYS[known][0], value)
            except ValueError as error:
                problems.append(f"{key}: {error}")
    parts, dim = (given.get(key, KEYS[key][1]) for key in ("model_params.pcb_n_parts", "model_params.feature_dim"))
    if parts and dim % parts:
        problems.append(f"model_params.feature_dim: {dim} is no multiple of pcb_n_parts, {parts}")
    if given.get("parallels") == []:
        problems.append("parallels: name one GPU at least")
    if problems:
        raise ConfigError(str(path), problems)
    return given, remarks


def _flat(tree: Mapping[str, Any], problems: list[str]) -> Iterator[tuple[str, Any]]:
    """(key, value) with dots between tables; current spellings first."""
    tables = {key.partition(".")[0] for key in KEYS if "." in key}
    for name, value in sorted(tree.items(), key=lambda item: item[0] in OLDER):
        if isinstance(value, dict) and name not in KEYS and name not in OLDER:
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        elif name in tables:
            problems.append(f"{name}: expected an object, got {json.dumps(value)[:40]}")
        else:
            yield name, value


def _read(path: Path) -> Tables:
    try:
        tree = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a JSON object, as params.json of pytorch-reid is one")
    return tree
