import subprocess
import sys

import torch

from tag_plugins_reid.losses.memory import Memory

TWO = """
import sys, torch, torch.distributed as dist
from torch import nn
from tag_plugins_reid.losses.memory import Memory

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.memory = nn.Parameter(torch.ones(2)), Memory(size=6, dim=2)
    def forward(self, features, labels):
        self.own = self.memory.push(features, labels).tolist()
        return (features * self.scale).sum()

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
model, owned = nn.parallel.DistributedDataParallel(Model()), []
for step in range(2):
    count = 1 + rank  # uneven shares
    features = torch.arange(2.0 * count).reshape(count, 2) + 10 * rank + 100 * step
    model(features, torch.arange(count) + 2 * rank).backward()
    owned.append(model.module.own)
model.module(torch.ones(1, 2), torch.zeros(1, dtype=torch.int64))  # without the other process
memory = model.module.memory
print(memory.features.tolist(), memory.labels.tolist(), memory.position.item(), [*owned, model.module.own])
dist.destroy_process_group()
"""


def test_two_processes_keep_one_memory_of_both_and_each_knows_its_own(tmp_path):
    command = [sys.executable, "-c", TWO]
    runs = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    told = [run.communicate(timeout=120)[0].strip() for run in runs]
    rows = [[0, 1], [10, 11], [12, 13], [100, 101], [110, 111], [112, 113]]
    memory = f"{[[float(a), float(b)] for a, b in rows]} {[0, 2, 3] * 2} 0"
    assert told == [f"{memory} [[0], [3], [-1]]", f"{memory} [[1, 2], [4, 5], [-1]]"]


def test_the_oldest_go_first_and_each_is_where_it_is_told():
    memory = Memory(size=5, dim=1)
    for first in (0, 3, 6):
        features = torch.arange(first, first + 3.0)[:, None]
        own = memory.push(features, torch.arange(first, first + 3))
        assert torch.equal(memory.features[own], features)
    assert sorted(memory.labels.tolist()) == [4, 5, 6, 7, 8]
    assert sorted(memory.features[:, 0].tolist()) == [4, 5, 6, 7, 8]


def test_a_batch_above_the_size_of_the_memory_keeps_its_last():
    memory = Memory(size=3, dim=1)
    own = memory.push(torch.arange(7.0)[:, None], torch.arange(7))
    assert own[:4].tolist() == [-1] * 4
    assert memory.features[own[4:], 0].tolist() == memory.labels[own[4:]].tolist() == [4, 5, 6]


def test_it_holds_no_graph():
    memory = Memory(size=4, dim=1)
    memory.push(torch.ones(2, 1, requires_grad=True) * 2, torch.tensor([0, 1]))
    assert not memory.features.requires_grad
