import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tag_core.builtin.losses import CrossEntropy
from tag_core.config import resolve
from tag_core.errors import UserError
from tag_plugins_reid.losses.arcface import ArcFace
from tag_plugins_reid.losses.sum import Sum
from tag_plugins_reid.losses.triplet import Triplet
from tag_plugins_reid.losses.xbm import XBM
from tag_plugins_reid.losses.xbm_softmax import XBMSoftmax
from tag_plugins_reid.models.small import SmallNet
from tag_plugins_reid.tasks.pcb import PCB

CLASSES = ["a", "b", "c"]
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def build(loss=None, **options):
    torch.manual_seed(0)
    task = PCB(SmallNet(4, 2), loss or CrossEntropy(), CLASSES, **{"parts": 3, "dim": 5, "dropout": 0.0, **options})
    for head in task.head or []:
        nn.init.normal_(head.weight)
    return task


def batch(height=24, **more):
    pictures = torch.randint(0, 256, (6, 3, height, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return {"image": pictures, "source": list("uvwxyz"), "damage": [None] * 6, **more}


@pytest.mark.parametrize("height", [24, 20, 14])
def test_adaptive_stripes_are_torchs_adaptive_pool(height):
    task = build().eval()
    pictures = batch(height)["image"]
    maps = task.backbone.maps(task.prepare(pictures))
    expected = F.adaptive_avg_pool2d(maps, (3, 1)).squeeze(3)
    torch.testing.assert_close(torch.stack(task.pooled(pictures), 2), expected)


def test_chunks_are_torchs_and_the_last_is_lower():
    task = build(stripes="chunk").eval()
    pictures = batch(16)["image"]  # a map of 8 rows: 3, 3 and 2
    maps = task.backbone.maps(task.prepare(pictures)).detach().numpy()
    for found, rows in zip(task.pooled(pictures), (slice(0, 3), slice(3, 6), slice(6, 8)), strict=True):
        np.testing.assert_allclose(found.detach(), maps[:, :, rows].mean((2, 3)), rtol=1e-5)


@pytest.mark.parametrize(("stripes", "parts", "height"), [("chunk", 4, 12), ("adaptive", 7, 12)])
def test_a_map_too_low_for_the_stripes_is_refused(stripes, parts, height):
    with pytest.raises(UserError, match=rf"map 6 high, of pictures 12 high, does not give {parts} stripes \({stripes}"):
        build(stripes=stripes, parts=parts).eval().predict(batch(height))


def test_the_loss_is_the_sum_of_the_stripes_classifiers():
    task = build(norm=False)
    reduced = task.reduced(task.pooled(batch()["image"]))
    losses = [F.cross_entropy(head(x), LABELS) for head, x in zip(task.head, reduced, strict=True)]
    torch.testing.assert_close(task(batch(label=LABELS))["loss"], sum(losses))


def test_a_triplet_looks_at_all_stripes_in_one_row():
    task = build(Sum([CrossEntropy(), Triplet()], [0.5, 2.0]), norm=False, whole=True)
    reduced = task.reduced(task.pooled(batch()["image"]))
    softmax = sum(F.cross_entropy(head(x), LABELS) for head, x in zip(task.head, reduced, strict=True))
    expected = 0.5 * softmax + 2 * Triplet()(torch.cat(reduced, 1), LABELS)
    found = task(batch(label=LABELS))
    torch.testing.assert_close(found["loss"], expected)
    assert "triplet_right" in found


def test_margin_softmaxes_see_cosines_of_each_stripe():
    task = build(ArcFace(), norm=False)
    reduced = task.reduced(task.pooled(batch()["image"]))
    pairs = zip(task.head, reduced, strict=True)
    cosines = [F.normalize(x) @ F.normalize(head.weight).T for head, x in pairs]
    torch.testing.assert_close(task(batch(label=LABELS))["loss"], sum(ArcFace()(c, LABELS) for c in cosines))
    torch.testing.assert_close(task.predict(batch())["logits"], sum(cosines))


def test_a_triplet_alone_needs_no_classifiers():
    task = build(Triplet())
    assert not [name for name in task.state_dict() if name.startswith("head.")]
    task(batch(label=LABELS))["loss"].backward()
    assert set(task.eval().predict(batch())) == {"embedding"}


def test_a_shared_reduction_normalises_over_all_stripes_and_single_ones_each_by_itself():
    shared, single = build().train(), build(shared=False).train()
    assert (len(shared.reducers), len(single.reducers)) == (1, 3)
    pooled = shared.pooled(batch()["image"])
    rows = torch.cat([shared.reducers[0][0](x) for x in pooled])
    norm = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(torch.cat(shared.reduced(pooled)), norm.relu(), rtol=1e-4, atol=1e-4)
    for reducer, x, found in zip(single.reducers, pooled, single.reduced(pooled), strict=True):
        rows = reducer[0](x)
        norm = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(found, norm.relu(), rtol=1e-4, atol=1e-4)


def test_the_whole_map_is_a_branch_with_a_reduction_of_its_own():
    task = build(whole=True).eval()
    pooled = task.pooled(batch()["image"])
    maps = task.backbone.maps(task.prepare(batch()["image"]))
    torch.testing.assert_close(pooled[3], maps.mean((2, 3)))
    torch.testing.assert_close(task.reduced(pooled)[3], task.reducers[1](pooled[3]))
    assert (len(task.reducers), len(task.head)) == (2, 4)
    assert task.predict(batch())["embedding"].shape == (6, 20)


def test_embeddings_are_the_reduced_stripes_or_the_pooled_ones_of_length_one_each():
    task = build(normalize=False).eval()
    pooled = task.pooled(batch()["image"])
    torch.testing.assert_close(task.predict(batch())["embedding"], torch.cat(task.reduced(pooled), 1))
    task = build(embedding="pooled").eval()
    found = task.predict(batch())["embedding"]
    assert found.shape == (6, 24)
    torch.testing.assert_close(found.unflatten(1, (3, 8)).norm(dim=2), torch.full((6, 3), 3**-0.5))


@pytest.mark.parametrize("options", [{}, {"whole": True}, {"shared": False, "norm": False}, {"pool": "gem-learned"}])
def test_every_parameter_gets_a_gradient(options):
    task = build(**options).train()
    task(batch(label=LABELS))["loss"].backward()
    assert [name for name, p in task.named_parameters() if p.grad is None] == []


def test_dropout_lies_before_or_behind_the_reduction():
    before, behind = build(dropout=0.9).train(), build(dropout_after=0.9).train()
    pooled = before.pooled(batch()["image"])
    assert not torch.equal(torch.cat(before.reduced(pooled)), torch.cat(before.reduced(pooled)))
    assert torch.equal(torch.cat(behind.reduced(pooled)), torch.cat(behind.reduced(pooled)))
    data = batch(label=LABELS)
    assert not torch.equal(behind(data)["loss"], behind(data)["loss"])


def test_a_memory_for_one_classifier_and_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="XBMSoftmax is for reid/embedding"):
        build(XBMSoftmax(ArcFace(), dim=5, size=8))
    with pytest.raises(UserError, match="features of 5 numbers, these have 20; set its dim=20"):
        build(XBM(Triplet(), dim=5), whole=True)
    with pytest.raises(ValueError, match="parts and dim must be at least 1"):
        build(parts=0)


def test_stripes_of_their_own_norm_cannot_be_trained_on_a_single_picture():
    one = {"image": batch()["image"][:1], "label": LABELS[:1]}
    assert build().train()(one)["loss"].isfinite()
    with pytest.raises(UserError, match=r"set train.drop_last=true"):
        build(shared=False).train()(one)


def test_the_published_sizes_and_pytorch_reids_are_options():
    with torch.device("meta"):
        task = resolve("reid/pcb", needs=()).task.build(classes=CLASSES)
        pictures = torch.empty(2, 3, 384, 128)
        assert task.backbone.maps(pictures).shape == (2, 2048, 24, 8)
        assert task.reducers[0][0].bias is None
        assert [head.in_features for head in task.head] == [256] * 6
        options = ["shared=false", "norm=false", "dropout=0", "dropout_after=0.5", "stripes=chunk"]
        options = [f"task.{option}" for option in options] + ["task.backbone.last_stride=2"]
        task = resolve("reid/pcb", options, needs=()).task.build(classes=CLASSES)
        assert len(task.reducers) == 6
        assert task.reducers[0].bias.shape == (256,)
