import pickle

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
from tag_plugins_reid.tasks.embedding import Embedding

CLASSES = ["a", "b", "c"]
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def build(loss=None, **options):
    torch.manual_seed(0)
    task = Embedding(SmallNet(4, 2), loss or CrossEntropy(), CLASSES, **options)
    if task.head is not None:
        nn.init.normal_(task.head.weight)
    return task


def batch(**more):
    pictures = torch.randint(0, 256, (6, 3, 16, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return {"image": pictures, "source": list("uvwxyz"), "damage": [None] * 6, **more}


def test_bytes_are_scaled_and_normalised_and_floats_are_taken_as_they_are():
    task = build(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    pictures = batch()["image"]
    mean, std = (np.array(v).reshape(3, 1, 1) for v in ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
    np.testing.assert_allclose(task.prepare(pictures), (pictures.numpy() / 255 - mean) / std, rtol=1e-5, atol=1e-6)
    floats = torch.randn(2, 3, 4, 4)
    assert torch.equal(task.prepare(floats), floats)
    with pytest.raises(UserError, match=r"image must be \[N, 3, H, W\], got \[2, 1, 4, 4\]"):
        task.prepare(torch.zeros(2, 1, 4, 4))


def test_the_bnneck_normalises_features_without_a_bias_and_the_classifier_has_none():
    task = build(neck="bnneck").train()
    features = task.features(batch()["image"])
    expected = (features - features.mean(0)) / (features.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(task.norm(features), expected, rtol=1e-4, atol=1e-4)
    assert not task.norm.bias.requires_grad
    assert task.head.bias is None
    assert isinstance(task.reduce, nn.Identity)


def test_the_linear_neck_is_pytorch_reids():
    torch.manual_seed(0)
    classes = [str(n) for n in range(200)]
    task = Embedding(SmallNet(64, 3), CrossEntropy(), classes, neck="linear", dim=192)
    assert float(task.reduce.weight.detach().std()) == pytest.approx((2 / 192) ** 0.5, rel=0.02)  # Kaiming, by fan-out
    assert float(task.head.weight.detach().std()) == pytest.approx(0.001, rel=0.02)
    assert not task.reduce.bias.any()
    assert not task.head.bias.any()


def test_each_loss_gets_what_it_takes():
    data = batch(label=LABELS)
    task = build(neck="bnneck", dim=5).train()
    features = task.reduce(task.pool(task.backbone.maps(task.prepare(data["image"]))))
    neck = task.norm(features)
    cosines = F.normalize(neck) @ F.normalize(task.head.weight).T
    for loss, given in (
        (CrossEntropy(), neck @ task.head.weight.T),
        (ArcFace(), cosines),
        (Triplet(), features),
    ):
        other = build(loss, neck="bnneck", dim=5).train()
        other.load_state_dict(task.state_dict(), strict=False)
        torch.testing.assert_close(other(data)["loss"], loss(given, LABELS), rtol=1e-4, atol=1e-4)


def test_a_sum_of_losses_gets_everything_and_is_logged():
    data = batch(label=LABELS)
    single = [build(loss, neck="bnneck").train()(data)["loss"] for loss in (CrossEntropy(), Triplet(), ArcFace())]
    torch.manual_seed(0)
    found = build(Sum([CrossEntropy(), Triplet(), ArcFace()], [1.0, 0.5, 2.0]), neck="bnneck").train()(data)
    torch.testing.assert_close(found["loss"], single[0] + 0.5 * single[1] + 2 * single[2])
    assert {"loss_1", "loss_2", "loss_3", "triplet_right"} < set(found)


def test_a_memory_before_the_classifier_gets_embeddings_and_class_weights():
    task = build(XBMSoftmax(ArcFace(), dim=5, size=8), neck="bnneck", dim=5).train()
    task(batch(label=LABELS))
    neck = task.norm(task.features(batch()["image"]))
    torch.testing.assert_close(task.loss.memory.features[:6], F.normalize(neck.detach()), rtol=1e-4, atol=1e-4)
    assert task(batch(label=LABELS))["memory_filled"] == 1


def test_a_loss_of_features_alone_needs_no_classifier():
    task = build(Triplet()).train()
    assert task.head is None
    assert not [name for name in task.state_dict() if name.startswith("head.")]
    task(batch(label=LABELS))["loss"].backward()
    assert set(task.eval().predict(batch())) == {"embedding"}


@pytest.mark.parametrize("loss", [CrossEntropy(), ArcFace(), Triplet(), Sum([CrossEntropy(), Triplet()])])
@pytest.mark.parametrize("options", [{}, {"neck": "linear", "dim": 4}, {"neck": "bnneck"}, {"pool": "gem-learned"}])
def test_every_parameter_that_learns_gets_a_gradient(loss, options):
    task = build(loss, **options).train()
    task(batch(label=LABELS))["loss"].backward()
    assert [name for name, p in task.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_bnneck_without_a_classifier_standardises():
    task = build(Triplet(), neck="bnneck", normalize=False).train()
    task.norm.momentum = 1.0
    task(batch(label=LABELS))
    features = task.features(batch()["image"])
    expected = (features - features.mean(0)) / (features.var(0) + 1e-5).sqrt()
    torch.testing.assert_close(task.norm.eval()(features), expected, rtol=1e-4, atol=1e-4)


def test_turned_pictures_are_classes_of_their_own():
    task = build(turns=4).train()
    assert task.head.out_features == 12
    square = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    turned = torch.from_numpy(np.concatenate([np.rot90(square.numpy(), k, (2, 3)) for k in range(4)]).copy())
    logits = task.head(task.features(turned))
    expected = F.cross_entropy(logits, torch.cat([LABELS, LABELS + 3, LABELS + 6, LABELS + 9]))
    torch.testing.assert_close(task({"image": square, "label": LABELS})["loss"], expected)
    some = torch.where(torch.arange(6) < 2, -1, LABELS)
    expected = F.cross_entropy(
        logits.view(4, 6, -1)[:, 2:].flatten(0, 1), torch.cat([LABELS[2:] + 3 * turn for turn in range(4)])
    )
    torch.testing.assert_close(task({"image": square, "label": some})["loss"], expected)
    outputs = task.eval().predict({"image": square, "label": LABELS})
    assert outputs["logits"].shape == (6, 3)
    with pytest.raises(UserError, match="square pictures, these are 16x8"):
        task.train()(batch(label=LABELS))


@pytest.mark.parametrize("normalize", [True, False])
def test_views_join_the_embeddings_of_the_turned_pictures(normalize):
    torch.manual_seed(0)
    one, four = (build(views=views, normalize=normalize).eval() for views in (1, 4))
    four.load_state_dict(one.state_dict())
    pictures = batch()["image"]
    turned = [torch.from_numpy(np.rot90(pictures.numpy(), k, (2, 3)).copy()) for k in range(4)]
    expected = torch.stack([one.predict({"image": each})["embedding"] for each in turned], 1)
    found = four.predict(batch(label=LABELS))
    torch.testing.assert_close(found["embedding"].view(expected.shape) * 2, expected)
    own = one.predict(batch(label=LABELS))
    assert all(torch.equal(found[key], own[key]) for key in own if key != "embedding")


def test_embeddings_have_length_one_unless_told_otherwise():
    unit, raw = (build(normalize=n).eval().predict(batch())["embedding"] for n in (True, False))
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(F.normalize(raw), unit)
    assert not torch.allclose(raw, unit)


def test_scores_of_cosines_are_taken_at_the_losss_scale():
    outputs = build(ArcFace(scale=8.0)).eval().predict(batch())
    torch.testing.assert_close(outputs["scores"], (8 * outputs["logits"]).softmax(1))
    assert outputs["logits"].abs().max() <= 1


def test_identities_that_were_not_trained_on_have_no_loss():
    task = build(ArcFace()).eval()
    known, unknown = task.predict(batch(label=LABELS)), task.predict(batch(label=torch.tensor([0, 1, 2, -1, 0, 0])))
    torch.testing.assert_close(known["loss"], ArcFace()(known["logits"], LABELS))
    assert "loss" not in unknown
    assert "loss" not in build(Triplet()).eval().predict(batch(label=LABELS))


def test_a_record_is_the_embedding_with_identity_and_box():
    task = build().eval()
    data = batch(identity=list("ppqqrr"), box=[[1, 2, 3, 4]] * 6)
    outputs = task.predict(data)
    records = list(task.records(outputs, data))
    assert [record.source for record in records] == list("uvwxyz")
    assert records[2].embedding == outputs["embedding"][2].tolist()
    assert (records[2].truth, records[2].boxes) == ("q", [[1.0, 2.0, 3.0, 4.0]])
    assert next(iter(task.records(outputs, batch()))).truth is None


def test_dropout_acts_in_training_only():
    task, data = build(dropout=0.5).train(), batch(label=LABELS)
    assert not torch.equal(task(data)["loss"], task(data)["loss"])
    assert torch.equal(task.eval().predict(data)["embedding"], task.predict(data)["embedding"])


def test_a_task_pickles_and_keeps_the_normalisation_out_of_its_state():
    task = build(neck="bnneck").eval()
    copy = pickle.loads(pickle.dumps(task))
    assert torch.equal(copy.predict(batch())["embedding"], task.predict(batch())["embedding"])
    assert not {"mean", "std"} & set(task.state_dict())
    assert "head.weight" in task.state_dict()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dim": 4}, "dim must be 0 or more, and 0 with neck none; got 4 and none"),
        ({"neck": "bnneck", "dim": -1}, "dim must be 0 or more"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"std": (0.0, 1.0, 1.0)}, "std must be above 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        build(**options)


def test_a_backbone_without_maps_is_refused_with_its_name():
    backbone = nn.Linear(3, 4)
    backbone.feature_dim = 4
    with pytest.raises(ValueError, match=r"Embedding needs a backbone with maps\(pictures\).*; Linear has none"):
        Embedding(backbone, CrossEntropy(), CLASSES)


def test_a_loss_that_takes_what_nothing_gives_is_refused():
    loss = nn.Module()
    loss.takes = "feature"
    with pytest.raises(ValueError, match="takes is logits, cosines, features or all, not 'feature'"):
        build(loss)


def test_a_loss_of_ones_own_may_take_all_that_there_is():
    class Everything(nn.Module):
        takes = "all"

        def forward(self, given, labels):
            self.given = {name: list(value.shape) for name, value in given.items()}
            return given["features"].sum()

    task = build(Everything())
    task(batch(label=LABELS))
    table = {"features": [6, 8], "embeddings": [6, 8], "class_weights": [3, 8], "logits": [6, 3], "cosines": [6, 3]}
    assert task.loss.given == table


def test_a_memory_of_another_width_is_refused_before_the_training_begins():
    loss = Sum([CrossEntropy(), XBM(Triplet(), dim=7)])
    with pytest.raises(UserError, match="task.loss: its memory is for features of 7 numbers, these have 5; .* dim=5"):
        build(loss, neck="bnneck", dim=5)


def test_a_neck_cannot_be_trained_on_a_single_picture_and_says_the_way_out():
    task = build(neck="bnneck")
    one = {"image": batch()["image"][:1], "source": ["u"], "label": LABELS[:1]}
    with pytest.raises(UserError, match="set train.drop_last=true, or another train.batch_size"):
        task.train()(one)
    assert task.eval().predict(one)["embedding"].shape == (1, 8)


def test_the_defaults_of_pytorch_reid_are_options():
    options = ["task.neck=linear", "task.dim=1536", "task.backbone.last_stride=2", "task.loss.label_smoothing=0"]
    task = resolve("reid/softmax", options, needs=()).task.build(classes=CLASSES)
    assert task.head.weight.shape == (3, 1536)
    assert task.reduce.weight.shape == (1536, 2048)
