"""Bidirectional LSTMs with attention over their states, for long feature sequences."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tag_plugins_video.models.sequences import YOUTUBE8M, check_sizes, linear, softmax_over_frames, unpack


class LSTM(nn.Module):
    """One direction of an LSTM, optionally with peepholes (Gers & Schmidhuber, IJCNN 2000).

    Takes the inputs' share of the gates [N, T, 4 * hidden] (input, forget, candidate, output, as in
    ``torch.nn.LSTM``, which has no peepholes) and gives the states [N, T, hidden]. With peepholes the input
    and forget gates see the last cell, the output gate the new one, each through a weight per unit.
    """

    def __init__(self, hidden: int, peepholes: bool) -> None:
        super().__init__()
        self.hidden = hidden
        self.recurrent = linear(hidden, 4 * hidden)
        self.peepholes = nn.Parameter(torch.zeros(3 * hidden)) if peepholes else None

    def forward(self, gates: Tensor) -> Tensor:
        gates = gates.to(torch.promote_types(gates.dtype, torch.float32))  # a cell sums up: not in half precision
        carried = (gates.new_zeros(gates.shape[0], self.hidden), gates.new_zeros(gates.shape[0], self.hidden))
        if torch.compiler.is_exporting():
            return self._as_loop(carried, gates)
        states = []
        for frame in gates.unbind(1):
            carried = self.step(carried, frame)
            states.append(carried[0])
        return torch.stack(states, dim=1)

    def step(self, carried: tuple[Tensor, Tensor], frame: Tensor) -> tuple[Tensor, Tensor]:
        """State and cell after one more frame."""
        state, cell = carried
        to_input, to_forget, to_output = (0, 0, 0) if self.peepholes is None else self.peepholes.chunk(3)
        enter, forget, candidate, output = (frame + self.recurrent(state)).chunk(4, dim=1)
        kept = torch.sigmoid(forget + to_forget * cell) * cell
        cell = kept + torch.sigmoid(enter + to_input * cell) * torch.tanh(candidate)
        return torch.sigmoid(output + to_output * cell) * torch.tanh(cell), cell

    def _as_loop(self, carried: tuple[Tensor, Tensor], gates: Tensor) -> Tensor:
        """The same as one operator that any number of frames goes through, where ``for`` would be unrolled."""
        from torch._higher_order_ops import scan

        def step(carried: tuple[Tensor, Tensor], frame: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
            carried = self.step(carried, frame)
            return carried, carried[0].clone()  # what is carried may not be an output too

        states: Tensor = scan(step, carried, gates, dim=1)[1]
        return states


def reverse(values: Tensor, mask: Tensor) -> Tensor:
    """Each sequence of [N, T, D] backwards, its padding left at the end; its own inverse."""
    at, length = torch.arange(values.shape[1], device=values.device), mask.sum(1, keepdim=True)
    order = torch.where(mask, length - 1 - at, at)
    return values.gather(1, order.unsqueeze(2).expand_as(values))


class AttentiveLSTM(nn.Module):
    """Embedding, a bidirectional LSTM and the attention-weighted sum of its states: one modality.

    Features [N, T, D] and mask [N, T] to [N, 2 * hidden].
    """

    def __init__(self, dim: int, embedding: int, hidden: int, peepholes: bool, dropout: float) -> None:
        super().__init__()
        self.embed = linear(dim, embedding)
        self.to_forward, self.to_backward = linear(embedding, 4 * hidden), linear(embedding, 4 * hidden)
        self.forward_lstm, self.backward_lstm = LSTM(hidden, peepholes), LSTM(hidden, peepholes)
        self.dropout = nn.Dropout(dropout)
        self.score = linear(2 * hidden, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        embedded = torch.tanh(self.embed(features))
        ahead = self.forward_lstm(self.to_forward(embedded))
        back = self.backward_lstm(self.to_backward(reverse(embedded, mask)))
        states = self.dropout(torch.cat([ahead, reverse(back, mask)], dim=2))
        return torch.sum(softmax_over_frames(self.score(states), mask) * states, dim=1)


class AttentionLSTM(nn.Module):
    """An attentive bidirectional LSTM on each modality, then two fully connected layers (ReLU, tanh).

    The form of Paddle's video library: with its default sizes and 3862 classes, 108,749,592 parameters
    with the classifier (108,737,304 without peepholes). Input: see
    :mod:`tag_plugins_video.models.sequences`; features [N, hidden[1]].

    Args:
        modalities: name of each stream of features and its size; default: YouTube-8M's rgb 1024, audio 128.
        embedding: size that a frame's features are brought to before the LSTM.
        lstm: units of the LSTM in each direction.
        hidden: units of the two fully connected layers.
        peepholes: let the gates see the cell, as the published model does.
        dropout: share of the LSTM's states dropped in training; the rest is scaled up, where Paddle's
            original scaled down in evaluation instead.
    """

    def __init__(
        self,
        modalities: dict[str, int] = YOUTUBE8M,
        embedding: int = 512,
        lstm: int = 1024,
        hidden: tuple[int, int] = (8192, 4096),
        peepholes: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_sizes(modalities, embedding=embedding, lstm=lstm, hidden=min(hidden))
        self.modalities, self.feature_dim = dict(modalities), hidden[1]
        branches = {n: AttentiveLSTM(dim, embedding, lstm, peepholes, dropout) for n, dim in modalities.items()}
        self.lstm = nn.ModuleDict(branches)
        self.fc1 = linear(len(modalities) * 2 * lstm, hidden[0])
        self.fc2 = linear(*hidden)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        features, mask = unpack(inputs, self.modalities)
        summed = torch.cat([branch(features[name], mask) for name, branch in self.lstm.items()], dim=1)
        return torch.tanh(self.fc2(torch.relu(self.fc1(summed))))
