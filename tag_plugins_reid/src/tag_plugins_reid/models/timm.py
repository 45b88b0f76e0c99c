"""Any image model of timm, by its name there: EfficientNet, ConvNeXt, ViT, Swin, ..."""

from __future__ import annotations

import difflib
import warnings
from typing import Any

import timm
from torch import Tensor, nn

from tag_core.engine.download import from_library
from tag_core.errors import UserError


class Timm(nn.Module):
    """A model of timm up to its last feature map, without its pool and classifier.

    Input [N, 3, H, W], normalised. Of a transformer the patch tokens are the map, laid out as the patches are; its
    class token is left out.

    Args:
        model: its name in timm (``efficientnet_b0`` to ``b7``, ``tf_efficientnet_b5.ns_jft_in1k``, ...).
        pretrained: start from timm's weights of that name, fetched once.
        size: height and width of the pictures, for models that are made for one size, as most transformers are.
    """

    def __init__(
        self, model: str = "efficientnet_b0", pretrained: bool = False, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        if not timm.is_model(model):
            near = ", ".join(difflib.get_close_matches(model, timm.list_models(), n=3))
            raise ValueError(f"no model {model!r} in timm{f'; did you mean {near}?' if near else ''}")
        self._name, self._pretrained, self._size = model, pretrained, size
        self.net = self._create()
        self.feature_dim: int = self.net.num_features

    def _create(self, pretrained: bool = False) -> Any:
        size = {"img_size": self._size} if self._size else {}
        try:
            with warnings.catch_warnings(action="ignore"):  # an old name that timm maps to its new one
                return timm.create_model(self._name, pretrained=pretrained, num_classes=0, **size)
        except TypeError as error:
            if size and "img_size" in str(error):
                raise ValueError(f"{self._name} takes pictures of any size: leave the option size out") from None
            raise

    def initialize(self) -> None:
        """Fetch timm's weights, where asked for; called when a training starts afresh.

        Raises:
            WeightsError: they cannot be fetched, or there are none of that name.
        """
        if self._pretrained:
            self.net.load_state_dict(from_library(self._name, lambda: self._create(pretrained=True)).state_dict())

    def maps(self, pictures: Tensor) -> Tensor:
        """[N, 3, H, W] to the last feature map [N, feature_dim, h, w].

        Raises:
            UserError: the model gives no such map, or not for pictures of this size.
        """
        try:
            found: Tensor = self.net.forward_features(pictures)
        except AssertionError as error:
            size = list(pictures.shape[-2:])
            raise UserError(f"{self._name}: {error}; for pictures of {size}: task.backbone.size={size}") from None
        if found.dim() == 3:
            found = self._laid_out(found)
        elif getattr(self.net, "output_fmt", "NCHW") == "NHWC":
            found = found.permute(0, 3, 1, 2)
        return found

    def _laid_out(self, tokens: Tensor) -> Tensor:
        """Tokens [N, T, D], those that are no patch in front, as a map [N, D, h, w]."""
        first = int(getattr(self.net, "num_prefix_tokens", 0))
        grid = getattr(getattr(self.net, "patch_embed", None), "grid_size", None)
        if grid is None or grid[0] * grid[1] != tokens.shape[1] - first:
            raise UserError(
                f"{self._name} gives {tokens.shape[1]} tokens that are no map of the picture; choose a model whose "
                "features are maps, or a plain transformer (vit_*, deit_*, eva02_*)"
            )
        return tokens[:, first:].transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *grid)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.maps(pictures).mean((2, 3))
