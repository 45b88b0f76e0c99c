import copy
import io
import pickle

import pytest
import torch
import torchvision
from torch import nn

from tag_core.builtin.optimizers import adam, adamw, groups_of, rmsprop, sgd


class Model(nn.Module):
    """A torchvision ResNet-18 as backbone, and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = torchvision.models.resnet18()
        self.backbone.fc = nn.Identity()
        self.head = nn.Linear(512, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.head(self.backbone(x)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


def names_by_group(model, groups):
    names = {id(p): name for name, p in model.named_parameters()}
    return {group["name"]: [names[id(p)] for p in group["params"]] for group in groups}


@pytest.mark.parametrize("build", [sgd, adamw, adam, rmsprop])
def test_every_parameter_is_in_exactly_one_group_of_every_optimizer(model, build):
    optimizer = build(model, lr=0.1, lr_factors={"backbone": 0.1, "backbone.layer4": 0.5})
    found = [p for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in found}) == len(found) == len(list(model.parameters()))
    rates = {g["name"]: (g["lr"], g["initial_lr"]) for g in optimizer.param_groups}
    assert rates["backbone"] == pytest.approx((0.01, 0.01))
    assert rates["backbone.layer4"] == pytest.approx((0.05, 0.05))
    assert rates["rest"] == rates["rest, no decay"] == (0.1, 0.1)


@pytest.mark.parametrize(
    ("build", "own", "options"),
    [
        (sgd, torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
        (adamw, torch.optim.AdamW, {"betas": (0.8, 0.9)}),
        (adam, torch.optim.Adam, {"betas": (0.8, 0.9), "amsgrad": True}),
        (rmsprop, torch.optim.RMSprop, {"alpha": 0.9, "eps": 1e-6, "momentum": 0.5}),
    ],
)
def test_steps_equal_those_of_torch(build, own, options):
    torch.manual_seed(0)
    mine = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    other = copy.deepcopy(mine)
    optimizers = (
        build(mine, lr=0.02, weight_decay=0.1, decay_norm_and_bias=True, **options),
        own(other.parameters(), lr=0.02, weight_decay=0.1, **options),
    )
    for _ in range(5):
        x = torch.randn(8, 5)
        for net, optimizer in zip((mine, other), optimizers, strict=True):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    for p, q in zip(mine.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0)


def test_norms_and_biases_are_not_decayed_unless_asked(model):
    groups = groups_of(model, 0.1, 0.01, {}, False)
    names = names_by_group(model, groups)
    assert {g["name"]: g["weight_decay"] for g in groups} == {"rest": 0.01, "rest, no decay": 0.0}
    assert "backbone.bn1.weight" in names["rest, no decay"]
    assert "head.bias" in names["rest, no decay"]
    assert all(name.endswith(("conv1.weight", "conv2.weight", "0.weight", "head.weight")) for name in names["rest"])
    assert [g["name"] for g in groups_of(model, 0.1, 0.01, {}, True)] == ["rest"]


def test_the_longest_prefix_wins_and_ends_at_a_dot(model):
    factors = {"backbone.layer1": 2.0, "backbone.layer1.0": 3.0, "backbone.layer1.0.conv1.weight": 4.0}
    groups = groups_of(model, 1.0, 0.0, {"backbone": 0.5, **factors}, True)
    rate = {
        name: g["lr"] for g, names in zip(groups, names_by_group(model, groups).values(), strict=True) for name in names
    }
    assert rate["backbone.layer1.0.conv1.weight"] == 4
    assert rate["backbone.layer1.0.conv2.weight"] == 3
    assert rate["backbone.layer1.1.conv1.weight"] == 2
    assert rate["backbone.layer2.0.conv1.weight"] == 0.5
    assert rate["head.weight"] == 1
    ten = nn.Sequential(*[nn.Linear(1, 1) for _ in range(11)])
    groups = names_by_group(ten, groups_of(ten, 1.0, 0.0, {"1": 2.0}, True))
    assert groups["1"] == ["1.weight", "1.bias"]


def test_a_part_that_is_not_there_is_told_with_near_names(model):
    with pytest.raises(ValueError, match=r"no part 'backbone.layr1'; did you mean 'backbone.layer\d'"):
        sgd(model, lr_factors={"backbone.layr1": 2.0})


def test_a_model_without_a_backbone_says_what_it_has():
    with pytest.raises(ValueError, match="no part 'backbone'; its parts are 0, 1"):
        sgd(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), lr_factors={"backbone": 0.1})


def test_frozen_parts_stay_fixed_in_weights_and_statistics_and_the_rest_learns(model):
    optimizer = sgd(model, lr=0.1, lr_factors={"backbone.conv1": 0, "backbone.bn1": 0, "backbone.layer1": 0})
    before = copy.deepcopy(model.state_dict())
    model.train()
    for _ in range(2):
        model(torch.randn(4, 3, 32, 32)).square().mean().backward()
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    frozen = ("backbone.conv1.", "backbone.bn1.", "backbone.layer1.")
    assert not [name for name in changed if name.startswith(frozen)]
    assert {"backbone.bn1.running_mean", "backbone.layer1.0.bn1.num_batches_tracked"} <= set(before)
    assert {"backbone.layer2.0.bn1.running_mean", "backbone.layer2.0.conv1.weight", "head.weight"} <= changed
    grouped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not any(id(p) in grouped for name, p in model.named_parameters() if name.startswith(frozen))


def loads(model):
    return pickle.loads(pickle.dumps(model))


def saved_whole(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, loads, saved_whole])
def test_a_copy_of_a_frozen_model_is_frozen_and_its_state_dict_the_same(model, duplicate):
    keys = list(model.state_dict())
    sgd(model, lr_factors={"backbone": 0})
    twin = duplicate(model)
    assert list(twin.state_dict()) == keys
    mean = twin.backbone.bn1.running_mean.clone()
    twin.train()
    first, second = (twin.backbone(torch.ones(2, 3, 32, 32)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(twin.backbone.bn1.running_mean, mean)
    assert not any(p.requires_grad for p in twin.backbone.parameters())


def test_a_frozen_part_inside_a_list_and_a_frozen_dropout_are_still():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), nn.Linear(4, 4)])

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    model = Listed().train()
    model.head = nn.Linear(4, 4)
    sgd(model, lr_factors={"blocks": 0})
    x = torch.ones(3, 4)
    assert torch.equal(model(x), model(x))


def test_a_compiled_model_keeps_its_frozen_part_still(model):
    sgd(model, lr_factors={"backbone": 0})
    mean = model.backbone.bn1.running_mean.clone()
    compiled = torch.compile(model.train(), backend="eager")
    compiled(torch.randn(4, 3, 32, 32)).sum().backward()
    model.eval()
    compiled(torch.randn(4, 3, 32, 32))
    model.train()
    compiled(torch.randn(4, 3, 32, 32))
    assert torch.equal(model.backbone.bn1.running_mean, mean)


def test_one_frozen_parameter_leaves_its_neighbours_alone(model):
    names = names_by_group(model, groups_of(model, 0.1, 0.0, {"head.weight": 0}, True))
    assert "head.bias" in names["rest"]
    assert "head.weight" not in names["rest"]


def test_a_model_with_nothing_left_to_train_is_refused(model):
    with pytest.raises(ValueError, match="every parameter of the model is frozen"):
        sgd(model, lr_factors={"backbone": 0, "head": 0})


def test_groups_come_back_from_a_saved_state(model):
    optimizer = adamw(model, lr=0.1, lr_factors={"backbone": 0.1})
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * 0.5
    other = adamw(model, lr=0.7, lr_factors={"backbone": 0.1})
    other.load_state_dict(optimizer.state_dict())
    assert [(g["name"], g["lr"]) for g in other.param_groups] == [
        (g["name"], g["initial_lr"] * 0.5) for g in optimizer.param_groups
    ]


def test_the_end_of_a_frozen_part_may_train(model):
    optimizer = sgd(model, lr_factors={"backbone": 0, "backbone.layer4": 0.1})
    model.train()(torch.randn(4, 3, 32, 32))
    assert {g["name"] for g in optimizer.param_groups} == {
        *("backbone.layer4", "backbone.layer4, no decay"),
        *("rest", "rest, no decay"),
    }
    assert model.backbone.layer3[0].bn1.num_batches_tracked == 0
    assert model.backbone.layer4[0].bn1.num_batches_tracked == 1
