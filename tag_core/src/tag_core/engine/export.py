"""A task's ``predict`` as a graph of its own, ONNX or torch.export's, compared with PyTorch before it is kept."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import torch
import torch.fx.experimental._config as symbolic
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tag_core.engine.data import collate
from tag_core.engine.run import log
from tag_core.errors import TagError, UserError
from tag_core.files import atomic
from tag_core.kinds import Sample

Format = Literal["onnx", "torch"]
Tensors = dict[str, Tensor]
Run = Callable[[Tensors], Tensors]
Axes = dict[str, list[str | int]]
_PICTURE = {2: "height", 3: "width"}  # axes of [N, 3, H, W]


@dataclass
class Exported:
    """What a graph takes and gives.

    Args:
        inputs: the axes of each input; a name where any size will do.
        outputs: the axes of each output.
        types: of inputs and outputs, as torch calls them.
        least: smallest size of an axis by its name, where that is above 1.
        differences: each output's largest absolute difference from PyTorch.
    """

    inputs: Axes
    outputs: Axes
    types: dict[str, str]
    least: dict[str, int] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)


class Graph(nn.Module):
    """A task as a function from tensors to tensors; ``output`` names the only one wanted, empty for all."""

    def __init__(self, task: Any, output: str) -> None:
        super().__init__()
        self.task, self.output = task, output

    def forward(self, batch: Tensors) -> Tensors:
        found = getattr(self.task, "dense", self.task.predict)(batch)
        outputs = {name: value for name, value in found.items() if isinstance(value, Tensor)}
        if self.output and self.output not in outputs:
            raise UserError(f"output={self.output}: the task gives {', '.join(outputs)}; leave the option out")
        return {self.output: outputs[self.output]} if self.output else outputs


def needs(file_format: Format) -> None:
    """Raises UserError where a library that the format needs is not installed."""
    try:
        for library in ("onnx", "onnxruntime", "onnxscript") if file_format == "onnx" else ():
            importlib.import_module(library)
    except ImportError as error:
        raise UserError(f"export to ONNX: {error}; type: pip install 'tag-core[export]'") from None


def export(
    task: nn.Module,
    sample: Sample,
    path: Path,
    about: Mapping[str, Any],
    *,
    output: str = "",
    file_format: Format = "onnx",
    tolerance: float = 1e-3,
) -> Exported:
    """Write the graph to ``path``, once it gives what the task gives: for this sample, and for other sizes.

    Args:
        sample: one item of the data set; its tensors and numbers become the inputs, but for ``label``.
        about: what to write into the file, beside its inputs and outputs, as JSON under the name ``tag``.
        output: the only output wanted, such as ``embedding``.
        tolerance: largest difference, as a share of an output's largest value.

    Raises:
        UserError: the task cannot read the sample, or gives no such output.
        TagError: there is no such graph, or it differs by more; ``path`` is as it was.
        RunFolderError: the file cannot be written.
    """
    graph = Graph(task, output).eval()
    inputs = _batch_of_two(sample, graph)
    reason = "the model is made for it"
    with torch.no_grad(), atomic(path, "wb") as file:
        graph(inputs)  # what is wrong with task and sample is told here
        for any_length in (True, False):
            file.seek(0)
            file.truncate()
            try:
                with _quiet():
                    exported = _attempt(graph, inputs, any_length, file, about, file_format, tolerance)
                break
            except OSError:
                raise
            except Exception as error:
                told = " ".join(str(error).split())[:200]
                if not any_length:
                    raise TagError(f"{path}: not written: {told}") from error
                reason = told
    sizes = {axes[i] for axes in exported.inputs.values() for i in _free(graph, len(axes))[1:]}
    if fixed := sorted(size for size in sizes if isinstance(size, int)):
        log.info("the length is fixed at %s: %s", ", ".join(map(str, fixed)), reason)
    return exported


def _attempt(
    graph: Graph,
    inputs: Tensors,
    any_length: bool,
    file: IO[bytes],
    about: Mapping[str, Any],
    file_format: Format,
    tolerance: float,
) -> Exported:
    """Trace, write, read back and compare; any exception says why this does not work."""
    free = {n: dict.fromkeys(_free(graph, v.dim())[: None if any_length else 1], Dim.AUTO) for n, v in inputs.items()}
    with symbolic.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]  # a size of 1 is like any other
        program = torch.export.export(graph, (inputs,), dynamic_shapes={"batch": free})
    found = _describe(program, inputs, graph(inputs))
    notes = json.dumps({**about, **{k: v for k, v in asdict(found).items() if k != "differences"}})
    run = (_write_onnx if file_format == "onnx" else _write_torch)(program, found, notes, file)
    for batch in (inputs, _other_sizes(graph, inputs, found.inputs)):
        outputs = run(batch)
        for name, expected in graph(batch).items():
            difference, largest = _difference(outputs[name], expected)
            found.differences[name] = max(difference, found.differences.get(name, 0.0))
            if not difference <= tolerance * (largest or 1.0):
                sizes = ", ".join(f"{key} {list(value.shape)}" for key, value in batch.items())
                far = f"{difference:.3g} from PyTorch's, with values up to {largest:.3g} and tolerance {tolerance:g}"
                raise TagError(f"output {name} differs by {far} (for {sizes})")
    return found


def _free(graph: Graph, axes: int) -> tuple[int, ...]:
    """Those that may have any size: all in front of a frame, its features or its picture; of some, the picture's."""
    if axes == 4 and getattr(graph.task, "any_size", False):
        return 0, *_PICTURE
    return (0, 1) if axes == 3 else tuple(range(max(axes - 3, 1)))


def _batch_of_two(sample: Sample, graph: Graph) -> Tensors:
    """Tensors of the sample and of its like backwards; a task with a ``dense`` form gets the image alone."""
    batch = collate([sample, sample])
    wanted = {"image"} if hasattr(graph.task, "dense") else batch.keys() - {"label"}
    tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor) and name in wanted}
    return {n: torch.stack([v[0], v[0].flip(0)]) if v.dim() > 1 else v for n, v in tensors.items()}


def _other_sizes(graph: Graph, inputs: Tensors, axes: Axes) -> Tensors:
    """A batch of one, three times as long: another number of frames in all, too; pictures lose part of each side."""
    other = dict(inputs)
    for name, sizes in axes.items():
        for axis in (axis for axis, size in enumerate(sizes) if isinstance(size, str)):
            if size := {"height": 5 / 8, "width": 3 / 4}.get(str(sizes[axis])):
                other[name] = other[name].narrow(axis, 0, max(1, int(size * other[name].shape[axis])))
            elif 0 < axis == _free(graph, len(sizes))[-1]:
                other[name] = other[name].repeat_interleave(3, axis)
            else:
                other[name] = other[name].narrow(axis, 0, 1)
    return other


def _describe(program: ExportedProgram, inputs: Tensors, outputs: Tensors) -> Exported:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    given = {n: values[str(node)].shape for n, node in zip(inputs, signature.user_inputs, strict=True)}
    made = {n: values[str(node)].shape for n, node in zip(outputs, signature.user_outputs, strict=True)}
    names: dict[str, str] = {}
    for name, shape in given.items():
        for axis, size in reversed(list(enumerate(map(str, shape)))):
            if not size.isdecimal():
                told = "batch" if axis == 0 else _PICTURE.get(axis, "time") if len(shape) == 4 else "time"
                names.setdefault(size, f"{name}_{axis}" if told in names.values() else told)
        if names.get(str(shape[0])) != "batch":
            raise TagError(f"the graph works for batches of {shape[0]} only")

    def axes(shapes: Mapping[str, Any]) -> Axes:
        sizes = {n: [s if isinstance(s, int) else str(s) for s in shape] for n, shape in shapes.items()}
        for size in (s for shape in sizes.values() for s in shape if isinstance(s, str)):
            names.setdefault(size, size if len(size) < 20 else f"size_{len(names)}")  # long: a sum over a pyramid
        return {n: [names.get(str(s), s) for s in shape] for n, shape in sizes.items()}

    lower = {str(symbol): bounds.lower for symbol, bounds in program.range_constraints.items()}
    return Exported(
        axes(given),
        axes(made),
        types={name: str(value.dtype).removeprefix("torch.") for name, value in {**inputs, **outputs}.items()},
        least={name: int(lower[symbol]) for symbol, name in names.items() if lower.get(symbol, 0) > 1},
    )


def _write_onnx(program: ExportedProgram, found: Exported, notes: str, file: IO[bytes]) -> Run:
    import onnx
    import onnxruntime

    made = torch.onnx.export(
        program, input_names=list(found.inputs), output_names=list(found.outputs), dynamo=True, verbose=False
    )
    model = made.model_proto  # type: ignore[union-attr]
    del model.graph.value_info[:]  # sizes inside, under torch's names for them
    for value in (*model.graph.input, *model.graph.output):
        sizes = {**found.inputs, **found.outputs}[value.name]
        for dim, size in zip(value.type.tensor_type.shape.dim, sizes, strict=True):
            if isinstance(size, str):
                dim.dim_param = size
    onnx.helper.set_model_props(model, {"tag": notes})
    file.write(model.SerializeToString())
    file.flush()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(file.name, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Tensors) -> Tensors:
        outputs = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        return dict(zip(names, map(torch.from_numpy, outputs), strict=True))

    return run


def _write_torch(program: ExportedProgram, found: Exported, notes: str, file: IO[bytes]) -> Run:
    torch.export.save(program, file, extra_files={"tag.json": notes})
    file.flush()
    run: Run = torch.export.load(file.name).module()
    return run


def _difference(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """The largest absolute difference, and the largest value that is expected."""
    if found.shape != expected.shape:
        raise TagError(f"the graph gives {list(found.shape)}, not {list(expected.shape)}")
    return float((found.double() - expected.double()).abs().max()), float(expected.abs().max())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say of their own doings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
