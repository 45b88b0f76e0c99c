"""torchvision's ResNet-50 without its classifier, with the maps that a pyramid is built on."""

from __future__ import annotations

import torchvision.models
from torch import Tensor, nn

from tag_core.engine.download import from_library


class ResNet50(nn.Module):
    """A residual network (He et al., CVPR 2016) down to maps of 1/8, 1/16 and 1/32 of a picture.

    Input [N, 3, H, W]; features [N, 2048] are the mean of the last map. Parameters are named as in torchvision, whose
    weight files load with ``weights=FILE``.

    Args:
        pretrained: start from torchvision's first ImageNet weights, fetched once.
    """

    channels = (512, 1024, 2048)
    feature_dim = 2048

    def __init__(self, pretrained: bool = False) -> None:
        super().__init__()
        self._pretrained = pretrained
        for name, child in torchvision.models.resnet50().named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, child)

    def initialize(self) -> None:
        """Fetch torchvision's weights, where asked for; called when a training starts afresh.

        Raises:
            WeightsError: they cannot be fetched.
        """
        if not self._pretrained:
            return
        published = torchvision.models.ResNet50_Weights.IMAGENET1K_V1
        state = from_library("resnet50", lambda: published.get_state_dict(check_hash=True))
        self.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")})

    def maps(self, pictures: Tensor) -> list[Tensor]:
        """[N, 3, H, W] to three maps [N, channels, ceil(H / s), ceil(W / s)] with s = 8, 16 and 32."""
        found = []
        for name, child in self.named_children():
            pictures = child(pictures)
            if name in ("layer2", "layer3", "layer4"):
                found.append(pictures)
        return found

    def forward(self, pictures: Tensor) -> Tensor:
        return self.maps(pictures)[-1].mean((2, 3))
