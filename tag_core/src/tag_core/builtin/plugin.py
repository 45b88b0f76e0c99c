"""The built-in plugin ``core``: the general pieces that any recipe may name."""

from __future__ import annotations

from tag_core.component import Component
from tag_core.hookspecs import hookimpl


def _own(name: str, target: str, summary: str, paper: str = "") -> Component:
    return Component(name, f"tag_core.builtin.{target}", summary, paper)


@hookimpl
def tag_losses() -> list[Component]:
    return [
        _own("cross-entropy", "losses:CrossEntropy", "Cross-entropy, label smoothing, class weights"),
        _own("bce", "losses:BCE", "Binary cross-entropy, for several labels a sample"),
        _own("focal", "losses:Focal", "Focal loss, softmax or sigmoid", "Lin et al., ICCV 2017"),
    ]


@hookimpl
def tag_optimizers() -> list[Component]:
    return [
        _own("sgd", "optimizers:sgd", "Stochastic gradient descent with momentum"),
        _own("adamw", "optimizers:adamw", "Adam, decoupled weight decay", "Loshchilov & Hutter, ICLR 2019"),
        _own("adam", "optimizers:adam", "Adam", "Kingma & Ba, ICLR 2015"),
        _own("rmsprop", "optimizers:rmsprop", "RMSprop", "Tieleman & Hinton, 2012"),
    ]


@hookimpl
def tag_schedules() -> list[Component]:
    return [
        _own("constant", "schedules:Constant", "The same learning rate throughout"),
        _own("step", "schedules:Step", "Times gamma after every so many epochs"),
        _own("multi-step", "schedules:MultiStep", "Times gamma at given epochs"),
        _own("cosine", "schedules:Cosine", "Half a cosine down", "Loshchilov & Hutter, ICLR 2017"),
        _own("polynomial", "schedules:Polynomial", "A power of the share of training that is left"),
        _own("one-cycle", "schedules:OneCycle", "Up and down again", "Smith & Topin, arXiv 1708.07120"),
    ]


@hookimpl
def tag_metrics() -> list[Component]:
    return [
        _own("top-k", "metrics:TopK", "Share of samples whose label is among the k best"),
        _own("mean-class-accuracy", "metrics:MeanClassAccuracy", "Mean of the accuracies of the classes"),
        _own("multilabel-map", "metrics:MultilabelMAP", "Mean over classes of the average precision"),
        _own("confusion-matrix", "metrics:ConfusionMatrix", "How often which class is taken for which"),
    ]


@hookimpl
def tag_distributions() -> list[Component]:
    module = "tag_core.engine.distributed"
    return [
        Component("auto", f"{module}:auto", "Several processes where started so, else a GPU, else the CPU"),
        Component("cpu", f"{module}:Cpu", "One process on the CPU"),
        Component("cuda", f"{module}:Cuda", "One process on one GPU"),
        Component("ddp", f"{module}:Ddp", "Several processes, each with the whole model"),
        Component("fsdp", f"{module}:Fsdp", "Several processes, each with a part of the model"),
    ]


@hookimpl
def tag_sinks() -> list[Component]:
    return [
        _own("jsonl", "sinks:JSONLines", "One JSON object a line, nothing left out"),
        _own("csv", "sinks:CSV", "A flat table for spreadsheets"),
        _own("parquet", "sinks:Parquet", "Columns, for data frames (needs tag-core[parquet])"),
        _own("pickle", "sinks:Pickle", "A Python list of dicts, write only"),
    ]
