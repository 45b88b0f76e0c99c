"""C3D: plain 3x3x3 convolutions (Tran et al., ICCV 2015)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from torch import Tensor, nn

from tag_plugins_video.models.clips import check_clips

StateDict = dict[str, Tensor]
SPORTS1M = (("1a", 64), ("2a", 128), ("3a", 256), ("3b", 256), ("4a", 512), ("4b", 512), ("5a", 512), ("5b", 512))
UCF101 = (("1a", 64), ("2a", 128), ("3a", 256), ("4a", 256), ("5a", 256))


def from_pytorch_port(state: StateDict) -> StateDict:
    """Keys ``conv1.weight`` ... ``fc8.bias`` of the Sports-1M port to those of a classification task.

    Raises:
        KeyError: this is not such a state dict.
    """
    names = {"conv1": "backbone.conv1a", "conv2": "backbone.conv2a", "fc8": "head"}
    names |= {layer: f"backbone.{layer}" for layer in ("conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b")}
    names |= {layer: f"backbone.{layer}" for layer in ("fc6", "fc7")}
    return {f"{own}.{part}": state[f"{layer}.{part}"] for layer, own in names.items() for part in ("weight", "bias")}


def from_mmaction(state: StateDict) -> StateDict:
    """Keys of MMAction2, a recogniser's (``backbone.conv1a.conv.weight``) or its backbone's alone.

    Raises:
        KeyError: this is not such a state dict.
    """
    bare = {key.removeprefix("backbone."): value for key, value in state.items()}
    if "conv1a.conv.weight" not in bare:
        raise KeyError("conv1a.conv.weight")
    head = {"cls_head.fc_cls.weight": "head.weight", "cls_head.fc_cls.bias": "head.bias"}
    return {head.get(key, f"backbone.{key.replace('.conv.', '.')}"): value for key, value in bare.items()}


class C3D(nn.Module):
    """Five groups of 3x3x3 convolutions, each followed by a maximum, then two fully connected layers.

    Input [N, 3, T, H, W], 16 frames or more of 16x16 or more (published: 16 of 112x112, which leave 1x4x4
    places; those of other sizes are averaged or repeated to as many). Features [N, 4096 * width] of
    'sports1m', [N, 2048 * width] of 'ucf101', after the last ReLU.

    Args:
        net: 'sports1m' (eight convolutions, 4096 units) or 'ucf101' (five, 2048: the published net for
            training from scratch, with its initial weights).
        width: factor on every number of channels and units.
        dropout: share dropped between the fully connected layers in training.
        last_pool: how the last maximum makes 4x4 places of 7x7. 'pad': windows over a border of one, as
            the PyTorch ports do; 'ceil': the last window is half a one, as Caffe does, where the published
            weights come from. The two look at different places.
    """

    layouts: ClassVar[dict[str, Callable[[StateDict], StateDict]]] = {
        "c3d-pytorch": from_pytorch_port,
        "mmaction2": from_mmaction,
    }

    def __init__(
        self,
        net: Literal["sports1m", "ucf101"] = "sports1m",
        width: float = 1.0,
        dropout: float = 0.5,
        last_pool: Literal["pad", "ceil"] = "pad",
    ) -> None:
        super().__init__()
        layers, units = (SPORTS1M, 4096) if net == "sports1m" else (UCF101, 2048)
        self.feature_dim, inputs = round(units * width), 3
        if min(round(64 * width), self.feature_dim) < 1:
            raise ValueError(f"width {width} leaves no channels; give 1/64 or more")
        self.last_pool, self._convs = last_pool, [name for name, _ in layers]
        for name, channels in layers:
            self.add_module(f"conv{name}", nn.Conv3d(inputs, round(channels * width), 3, padding=1))
            inputs = round(channels * width)
        self.places = nn.AdaptiveAvgPool2d(4)
        self.fc6 = nn.Linear(inputs * 16, self.feature_dim)
        self.fc7 = nn.Linear(self.feature_dim, self.feature_dim)
        self.relu, self.dropout = nn.ReLU(), nn.Dropout(dropout)
        self.apply(_start_as_published if net == "ucf101" else _start)
        if net == "ucf101":
            nn.init.zeros_(self.get_submodule("conv1a").bias)  # type: ignore[arg-type]

    def forward(self, clips: Tensor) -> Tensor:
        check_clips("C3D", clips, frames=16, side=16)
        maps = clips
        for name, following in zip(self._convs, [*self._convs[1:], ""], strict=True):
            maps = self.relu(self.get_submodule(f"conv{name}")(maps))
            if following[:1] != name[0]:
                maps = self._pool(maps, int(name[0]))
        maps = maps.mean(dim=2)
        if tuple(maps.shape[2:]) != (4, 4):
            maps = self.places(maps)
        units = self.relu(self.fc6(maps.flatten(1)))
        features: Tensor = self.relu(self.fc7(self.dropout(units)))
        return features

    def _pool(self, maps: Tensor, group: int) -> Tensor:
        kernel = (1 if group == 1 else 2, 2, 2)
        padding = (0, 1, 1) if group == 5 and self.last_pool == "pad" else (0, 0, 0)
        ceil = group == 5 and self.last_pool == "ceil"
        return nn.functional.max_pool3d(maps, kernel, kernel, padding, ceil_mode=ceil)


def _start(module: nn.Module) -> None:
    """He's spread: torch's own shrinks the signal to a ten-thousandth over ten layers without norms."""
    if isinstance(module, nn.Conv3d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def _start_as_published(module: nn.Module) -> None:
    """Of ``c3d_train_ucf101``: normal weights, biases 1 (but 0 in the first layer)."""
    if isinstance(module, nn.Conv3d | nn.Linear):
        nn.init.normal_(module.weight, std=0.01 if isinstance(module, nn.Conv3d) else 0.005)
        nn.init.ones_(module.bias)  # type: ignore[arg-type]
