"""A graph of ``tag-run export`` in the place of weights: onnxruntime predicts, the task writes records."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tag_core.errors import UserError, WeightsError
from tag_core.kinds import Batch

if TYPE_CHECKING:
    from tag_core.config import Recipe


class GraphOutputs(dict[str, Tensor]):
    """What a graph gives, and a word to whoever looks for more."""

    source = ""

    def __missing__(self, name: str) -> Tensor:
        gives = f"the graph gives {', '.join(self)}, and {name} is needed"
        raise UserError(f"weights {self.source}: {gives}; export it with all outputs")


class OnnxGraph:
    """The ``predict`` of a task, by onnxruntime.

    Args:
        source: the ONNX file.

    Raises:
        WeightsError: onnxruntime is not installed or cannot run the file, or another program wrote it.
    """

    def __init__(self, source: str, device: torch.device) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise WeightsError(f"weights {source}: {error}; type: pip install 'tag-core[export]'") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, torch.get_num_threads()
        wanted = ["CUDAExecutionProvider"] * (device.type == "cuda") + ["CPUExecutionProvider"]
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        try:
            data = Path(source).expanduser().read_bytes()
            self.session = onnxruntime.InferenceSession(data, options, providers=providers)
        except OSError as error:
            raise WeightsError(f"weights {source}: {error.strerror}") from error
        except Exception as error:
            raise WeightsError(f"weights {source}: no graph that onnxruntime can run: {_line(error)}") from error
        try:
            about = json.loads(self.session.get_modelmeta().custom_metadata_map["tag"])
            self.inputs, self.types = dict(about["inputs"]), dict(about["types"])
            self.task, self.classes = str(about["task"]["name"]), list(map(str, about["classes"]))
        except (KeyError, ValueError, TypeError):
            raise WeightsError(
                f"weights {source}: no graph of 'tag-run export', which notes inputs and classes"
            ) from None
        self.source, self.device, self.digest = source, device, hashlib.sha256(data).digest()

    def __call__(self, batch: Batch) -> GraphOutputs:
        if torch.compiler.is_exporting():
            raise UserError(f"weights {self.source}: is a graph already")
        feed = {name: self._fitting(name, batch.get(name)).numpy(force=True) for name in self.inputs}
        try:
            found = self.session.run(None, feed)
        except Exception as error:
            raise UserError(f"weights {self.source}: onnxruntime cannot run this batch: {_line(error)}") from error
        names = [output.name for output in self.session.get_outputs()]
        outputs = GraphOutputs(zip(names, (torch.from_numpy(value).to(self.device) for value in found), strict=True))
        outputs.source = self.source
        return outputs

    def _fitting(self, name: str, value: Any) -> Tensor:
        """The input, once its type and sizes are those of the graph."""
        axes, kind = self.inputs[name], self.types.get(name)
        if isinstance(value, Tensor) and str(value.dtype) == f"torch.{kind}" and len(axes) == value.dim():
            sizes = [axis if isinstance(axis, str) else size for axis, size in zip(axes, value.shape, strict=True)]
            if sizes == axes:
                return value
        have = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else "none"
        wants = f"{kind} [{', '.join(map(str, axes))}]"
        raise UserError(
            f"weights {self.source}: the graph reads {name} as {wants}, the data give {have.removeprefix('torch.')}; "
            "prepare them in data.test as it was exported, or export it again"
        )


def task_with_graph(recipe: Recipe, source: str, device: torch.device) -> tuple[nn.Module, list[str]]:
    """The recipe's task, which predicts by the graph and whose own weights are never used; and the class names.

    Raises:
        WeightsError: as :class:`OnnxGraph`; or it is the graph of another task.
    """
    graph = OnnxGraph(source, device)
    if graph.task != recipe.task.entry.name:
        raise WeightsError(f"weights {source}: a graph of {graph.task}, not of this recipe's {recipe.task.entry.name}")
    torch.manual_seed(recipe.train.seed)
    task: Any = recipe.task.build(classes=graph.classes)
    task.predict = (lambda batch: task.select(graph(batch), batch)) if hasattr(task, "select") else graph
    task.register_buffer("graph", torch.tensor(list(graph.digest)))  # predictions of another file are others
    return task.to(device).eval(), graph.classes


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
