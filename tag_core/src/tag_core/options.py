"""The ``[train]`` and ``[eval]`` tables of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

LEAST = dict.fromkeys(("batch_size", "timeout", "epochs", "accumulate", "log_every", "shard_size"), 1)
"""Smallest value, where it is not 0."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What training, evaluation and prediction have in common.

    Args:
        batch_size: samples per forward pass; in training over all processes together, else per process.
        workers: processes that read samples, per rank; 0 reads in the main process.
        timeout: seconds after which a file that does not finish reading is given up.
        precision: arithmetic of the forward pass; bf16 and fp16 through autocast.
        channels_last: memory format of the model: faster convolutions on CPUs, and on GPUs with bf16 or fp16; "auto"
            is on CPUs only.
        compile: run the model through torch.compile.
    """

    batch_size: int = 16
    workers: int = 2
    timeout: float = 60.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool | Literal["auto"] = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        for option in fields(self):
            value, least = getattr(self, option.name), LEAST.get(option.name, 0)
            if isinstance(value, (int, float)) and value < least:
                raise ValueError(f"{option.name} must be at least {least}, got {value}")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunOptions):
    """The ``[train]`` table.

    Args:
        epochs: passes over the training data.
        accumulate: micro-batches per optimizer step.
        seed: of weights, order and augmentation.
        channels_last: as above; off unless asked for, since the last digits of a training decide where it goes.
        clip_norm: largest norm of the gradient; 0 leaves it alone.
        ema_decay: decay of a moving average of the weights, which is then validated and kept as best; 0 for none.
        validate_every: epochs between validations, beside the last epoch; 0 never validates.
        checkpoint_every: optimizer steps between checkpoints; 0 saves at the end of each epoch.
        best: score that chooses the best checkpoint; ``-`` in front where smaller is better.
            Empty: the first score of the first metric.
        patience: validations without a better score before training stops; 0 never stops early.
        deterministic: refuse operations that are not reproducible.
        drop_last: leave out the last incomplete batch of an epoch.
        log_every: optimizer steps between rows in scores.jsonl and the log.
    """

    epochs: int = 10
    accumulate: int = 1
    seed: int = 0
    channels_last: bool | Literal["auto"] = False
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
        super().__post_init__()
        if self.ema_decay >= 1:
            raise ValueError(f"ema_decay must be less than 1, got {self.ema_decay}")


@dataclass(frozen=True, kw_only=True)
class EvalOptions(RunOptions):
    """The ``[eval]`` table, for evaluation and prediction.

    Args:
        shard_size: inputs per output shard of a prediction, the unit of resuming.
    """

    shard_size: int = 64
