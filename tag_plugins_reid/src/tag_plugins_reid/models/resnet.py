"""ResNet-18 to 152 as torchvision builds them, without their average pool and classifier."""

from __future__ import annotations

from typing import Any, Literal

import torchvision.models
from torch import Tensor, nn

from tag_core.engine.download import from_library


class ResNet(nn.Module):
    """A residual network (He et al., CVPR 2016) that keeps its last feature map.

    Input [N, 3, H, W], normalised. Parameters are named as in torchvision, whose weight files load with
    ``weights=FILE``.

    Args:
        depth: layers.
        last_stride: of the last stage; 1 doubles the last map to a sixteenth of the picture ("Beyond Part Models",
            ECCV 2018, section 3.1), 2 is the original network.
        pretrained: start from torchvision's first ImageNet weights (IMAGENET1K_V1), which published results
            started from; fetched once.
    """

    def __init__(
        self, depth: Literal[18, 34, 50, 101, 152] = 50, last_stride: Literal[1, 2] = 1, pretrained: bool = False
    ) -> None:
        super().__init__()
        self._name, self._pretrained = f"resnet{depth}", pretrained
        net = torchvision.models.get_model(self._name)
        self.feature_dim: int = net.fc.in_features
        for name, child in net.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, child)
        first: Any = net.layer4[0]
        for conv in (first.conv2 if hasattr(first, "conv3") else first.conv1, first.downsample[0]):
            conv.stride = (last_stride, last_stride)

    def initialize(self) -> None:
        """Fetch torchvision's weights, where asked for; called when a training starts afresh.

        Raises:
            WeightsError: they cannot be fetched.
        """
        if self._pretrained:
            net = from_library(self._name, lambda: torchvision.models.get_model(self._name, weights="IMAGENET1K_V1"))
            self.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("fc.")})

    def maps(self, pictures: Tensor) -> Tensor:
        """[N, 3, H, W] to the last feature map [N, feature_dim, h, w]."""
        for child in self.children():
            pictures = child(pictures)
        return pictures

    def forward(self, pictures: Tensor) -> Tensor:
        return self.maps(pictures).mean((2, 3))
