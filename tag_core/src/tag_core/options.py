"""The ``[train]`` and ``[eval]`` tables of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The ``[train]`` table.

    Args:
        epochs: passes over the training data.
        batch_size: samples per optimizer step and micro-batch, over all processes together.
        accumulate: micro-batches per optimizer step.
        workers: processes that read samples, per rank; 0 reads in the training process.
        timeout: seconds after which a file that does not finish reading is given up.
        seed: of weights, order and augmentation.
        precision: arithmetic of the forward pass; bf16 and fp16 through autocast.
        channels_last: memory format of the model (faster convolutions on GPUs).
        compile: run the model through torch.compile.
        clip_norm: largest norm of the gradient; 0 leaves it alone.
        ema_decay: decay of an exponential moving average of the weights, which is then what is
            validated and kept as best; 0 for none.
        validate_every: epochs between validations; 0 never validates.
        checkpoint_every: optimizer steps between checkpoints; 0 saves at the end of each epoch.
        best: score that chooses the best checkpoint; ``-`` in front where smaller is better.
            Empty: the first score of the first metric.
        patience: validations without a better score before training stops; 0 never stops early.
        deterministic: refuse operations that are not reproducible.
        drop_last: leave out the last incomplete batch of an epoch.
        log_every: optimizer steps between rows in scores.jsonl and the log.
    """

    epochs: int = 10
    batch_size: int = 16
    accumulate: int = 1
    workers: int = 2
    timeout: float = 60.0
    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    validate_every: int = 1
    checkpoint_every: int = 0
    best: str = ""
    patience: int = 0
    deterministic: bool = False
    drop_last: bool = True
    log_every: int = 10

    def __post_init__(self) -> None:
        _at_least(self, 1, "epochs", "batch_size", "accumulate", "log_every")
        _at_least(self, 0, "workers", "clip_norm", "validate_every", "checkpoint_every", "patience", "seed")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")
        if self.timeout <= 0:
            raise ValueError(f"timeout must be positive, got {self.timeout}")


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """The ``[eval]`` table, for evaluation and prediction.

    Args:
        batch_size: samples per forward pass, per process.
        workers: processes that read samples, per rank; 0 reads in the main process.
        timeout: seconds after which a file that does not finish reading is given up.
        precision: arithmetic of the forward pass.
        channels_last: memory format of the model.
        compile: run the model through torch.compile.
        shard_size: inputs per output shard of a prediction, the unit of resuming.
    """

    batch_size: int = 16
    workers: int = 2
    timeout: float = 60.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    shard_size: int = 64

    def __post_init__(self) -> None:
        _at_least(self, 1, "batch_size", "shard_size")
        _at_least(self, 0, "workers")
        if self.timeout <= 0:
            raise ValueError(f"timeout must be positive, got {self.timeout}")


def _at_least(options: Any, least: float, *names: str) -> None:
    for name in names:
        if getattr(options, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(options, name)}")
