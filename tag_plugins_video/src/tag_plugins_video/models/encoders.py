"""2D image encoders by name: torchvision's, timm's, and two tiny ones."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import torchvision.models
from torch import nn

from tag_core.engine.download import from_library


def make_encoder(name: str, imagenet: bool = False) -> tuple[nn.Module, int]:
    """An encoder from [N, 3, H, W] to [N, D], and D.

    Args:
        name: a torchvision classification model (``resnet50``), ``timm/<model>``, ``tiny``, or ``tiny-grid``.
        imagenet: with its library's default weights, trained on ImageNet.

    Raises:
        ValueError: no encoder of that name, or one without a linear classifier to take off.
        WeightsError: the weights cannot be fetched.
    """
    if name in ("tiny", "tiny-grid"):
        if imagenet:
            raise ValueError(f"encoder {name!r} has no ImageNet weights")
        return _tiny(1 if name == "tiny" else 4)
    if name.startswith("timm/"):
        return _from_timm(name.removeprefix("timm/"), imagenet)
    return _from_torchvision(name, imagenet)


def _from_torchvision(name: str, imagenet: bool) -> tuple[nn.Module, int]:
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise ValueError(f"no encoder {name!r} in torchvision{_nearest(name, names)}")
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):  # they return tuples in training unless told otherwise
        options = {"aux_logits": False} if imagenet else {"aux_logits": False, "init_weights": True}
    weights = "DEFAULT" if imagenet else None
    model: nn.Module = _fetch(name, lambda: torchvision.models.get_model(name, weights=weights, **options))
    linear = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear or model.get_submodule(linear[-1]).out_features != 1000:
        raise ValueError(f"encoder {name!r} does not end in a linear classifier; choose another")
    features: int = model.get_submodule(linear[-1]).in_features  # type: ignore[assignment]
    parent, _, child = linear[-1].rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
    return model, features


def _from_timm(name: str, imagenet: bool) -> tuple[nn.Module, int]:
    import timm  # a second of import that torchvision's encoders do without

    if not timm.is_model(name):
        raise ValueError(f"no encoder {name!r} in timm{_nearest(name, timm.list_models())}")
    model: nn.Module = _fetch(name, lambda: timm.create_model(name, pretrained=imagenet, num_classes=0))
    return model, int(getattr(model, "head_hidden_size", None) or model.num_features)  # type: ignore[arg-type]


def _fetch(name: str, build: Callable[[], Any]) -> Any:
    faults = (ValueError, TypeError, AttributeError)  # of the recipe or the code
    return from_library(name, build, "ImageNet", "encoder_weights=''", faults)


def _tiny(places: int) -> tuple[nn.Module, int]:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(places), nn.Flatten()), 64 * places**2


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {', '.join(near)}?" if near else ""
