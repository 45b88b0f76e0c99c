"""The kinds of component, as the engine sees them.

A parameter annotated with one of these types is a nested component: ``loss: Loss`` in a task's
signature makes ``[task.loss]`` in a recipe name a loss and its options. With ``Callable[..., Loss]`` the owner
gets a function that builds it, and gives it what only the owner knows. Everything here is a
protocol: a component needs the methods, not a base class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from tag_core.records import Record

Sample = Mapping[str, Any]
"""One item of a dataset: ``source`` (str) and whatever the task reads, as tensors, numbers, strings."""
Batch = Mapping[str, Any]
"""Collated samples: tensors stacked to [N, ...], numbers to a tensor [N], everything else a list of N."""
Outputs = Mapping[str, Any]
"""A task's predictions for a batch, batch first: ``scores`` [N, C], ``embedding`` [N, D], ..."""


class Dataset(Protocol):
    """A map-style data set; pickles, and reads files only in ``__getitem__``.

    ``__getitem__`` raises :class:`~tag_core.errors.UnreadableInput` for a sample that cannot be
    read. Random choices use torch's, numpy's or Python's global generators: the engine seeds them
    per sample. A labelled data set has ``classes`` (names in index order) and ``label(index)``. One made from
    others' samples may have ``origin(index)``, their key: it is then split as they are. One of pictures may have
    ``size(index)``, (height, width), for samplers that group by it. One whose samples are stretches of files gives a
    list of samples for each, such as frames, all with its key as their source, and has ``file(index)``, whose name
    records then bear.
    For prediction the engine builds it with ``source=[paths]`` and ``labelled=False``; a classmethod
    ``expand(inputs)`` may say which paths the user's files, folders and patterns stand for (it is given the options
    whose names are among its parameters), and a method ``example()`` make up a sample without a file, which
    ``tag-run export`` traces the model with. A class attribute ``preparation`` names those options that decide what a
    model sees of a file; the others tell which files there are, and results of one model do not depend on them.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...
    def key(self, index: int) -> str:
        """The source of this sample, unique in the data set; no file is read."""


class Transform(Protocol):
    """Prepares what a dataset read: tensor in, tensor out."""

    def __call__(self, inputs: Any) -> Any: ...


class Backbone(Protocol):
    """An ``nn.Module`` from input tensors to features [N, feature_dim].

    One that starts from published weights of its own has a method ``initialize()``, which the engine
    calls once when a training starts afresh: building a backbone fetches nothing. Class attributes
    ``published_weights`` and ``layouts`` name weights and key mappings; see ``tag_core.engine.weights``.
    """

    feature_dim: int

    def __call__(self, inputs: Tensor) -> Tensor: ...


class Loss(Protocol):
    """An ``nn.Module`` or function from (logits [N, C], targets) to the mean loss of the batch."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor: ...


class Task(Protocol):
    """An ``nn.Module`` that owns backbone, head, loss and decoding.

    With ``output = "embedding"`` its ``embedding`` alone is wanted, and weights may lack ``head.*``.

    One that finds now more and now less has ``dense(batch)``, the tensors that export writes in the place of
    ``predict``, and ``select(outputs, batch)``, which makes the one's outputs the other's. With ``any_size = True``
    it takes pictures of any height and width. ``fuse()`` is called once weights are there to predict with, and
    ``crops(image, record)`` cuts what was found out of a picture [H, W, 3], for ``tag-run predict --crops``.
    """

    def __call__(self, batch: Batch) -> Mapping[str, Tensor]:
        """Training: ``loss`` (mean over the samples, a scalar) and any further scalars to log."""

    def predict(self, batch: Batch) -> Outputs:
        """Evaluation and prediction, under ``torch.no_grad``; for export, of the batch's tensors alone."""

    def records(self, outputs: Outputs, batch: Batch) -> Iterable[Record]:
        """One record or more per sample, in the order of the batch."""


class Metric(Protocol):
    """Accumulates over batches and merges across processes."""

    def update(self, outputs: Outputs, batch: Batch) -> None: ...
    def merge(self, other: Any) -> None:
        """Add what another instance of the same metric (in another process) has accumulated."""

    def compute(self) -> Mapping[str, Any]:
        """Named values; numbers go into the scores, anything else only into the report."""

    def reset(self) -> None: ...


class Sampler(Protocol):
    """Which samples of a data set training takes together."""

    def batches(self, epoch: int) -> Sequence[Sequence[int]]:
        """Indices of each batch of this epoch, the same whenever asked. An index may come twice.

        Of several processes, number r takes ``batch[r::processes]``.
        """


class Schedule(Protocol):
    """A factor on every learning rate as a function of the optimizer step, counted from 0."""

    def __call__(self, step: int) -> float: ...


class Sink(Protocol):
    """Writes records in some format; ``close`` finishes the file."""

    def write(self, record: Record) -> None: ...
    def close(self) -> None: ...


class Index(Protocol):
    """Nearest neighbours among vectors, float32 [N, D], which are numbered from 0 in the order they are added."""

    def add(self, vectors: Any) -> None: ...
    def search(self, queries: Any, k: int) -> tuple[Any, Any]:
        """Squared Euclidean distances and numbers [Q, k], nearest first; number -1 where fewer are found."""


class Optimizer(Protocol):
    """A ``torch.optim.Optimizer``."""


class Distribution(Protocol):
    """A :class:`tag_core.engine.distributed.Distribution`."""


KINDS: dict[str, str] = {
    "dataset": "tag_datasets",
    "transform": "tag_transforms",
    "backbone": "tag_backbones",
    "task": "tag_tasks",
    "loss": "tag_losses",
    "optimizer": "tag_optimizers",
    "sampler": "tag_samplers",
    "schedule": "tag_schedules",
    "metric": "tag_metrics",
    "distribution": "tag_distributions",
    "index": "tag_indexes",
    "sink": "tag_sinks",
}
"""Kind -> hook that registers components of it, in the order of listings."""

GIVEN: dict[str, tuple[str, ...]] = {
    "task": ("classes",),
    "optimizer": ("model",),
    "sampler": ("dataset", "batch_size", "seed", "processes"),
    "schedule": ("total_steps", "steps_per_epoch"),
    "metric": ("classes",),
    "sink": ("path",),
}
"""Parameters that the engine supplies when a component of the kind has them; they are not options."""


def kind_of(annotation: object) -> str | None:
    """The kind that an annotation names (every protocol above is one), or None for an ordinary option."""
    if isinstance(annotation, type) and annotation.__module__ == __name__:
        return annotation.__name__.lower()
    return None


def missing_members(kind: str, component: object) -> list[str]:
    """What the protocol of ``kind`` asks for and ``component`` does not have."""
    protocol = globals()[kind.title()]
    methods = [name for name, value in vars(protocol).items() if callable(value) and name not in _OF_EVERY_PROTOCOL]
    return [name for name in (*methods, *protocol.__annotations__) if not hasattr(component, name)]


_OF_EVERY_PROTOCOL = {"__init__", "__subclasshook__"}
