import numpy as np
import pytest
import torch

from tag_plugins_video.models.c3d_tiny import C3DTiny
from tag_plugins_video.models.vit import VideoViT
from tag_plugins_video.tasks.mae import MAE, take, tube_masks, tubelets


def build(**options):
    torch.manual_seed(0)
    backbone = VideoViT(dim=12, depth=1, heads=2, patch=4, tubelet=2)
    return MAE(backbone, **{"mask_ratio": 0.75, "decoder_dim": 12, "decoder_depth": 1, "decoder_heads": 2, **options})


def clips(count=3):
    return torch.randn(count, 4, 3, 8, 16)


@pytest.mark.parametrize(("ratio", "hidden"), [(0.9, 36), (0.75, 30), (0.01, 1), (0.99, 39)])
def test_tubes_hide_the_same_share_of_places_at_all_times(ratio, hidden):
    shown_at, hidden_at = tube_masks(6, (3, 5, 8), ratio, torch.device("cpu"))
    assert hidden_at.shape == (6, 3 * hidden)
    for shown, covered in zip(shown_at.tolist(), hidden_at.tolist(), strict=True):
        assert sorted(shown + covered) == list(range(120))
        places = [{i % 40 for i in covered if i // 40 == time} for time in range(3)]
        assert places[0] == places[1] == places[2]
        assert len(places[0]) == hidden
    assert len({tuple(sorted(row)) for row in hidden_at.tolist()}) > 1


def test_tubelets_are_cut_as_the_backbone_cuts_them():
    clip = torch.randn(2, 3, 4, 8, 12)
    found, number = tubelets(clip, (2, 4, 4)), 0
    assert found.shape == (2, 12, 32, 3)
    for t in range(2):
        for h in range(2):
            for w in range(3):
                cut = clip[:, :, 2 * t : 2 * t + 2, 4 * h : 4 * h + 4, 4 * w : 4 * w + 4]
                assert torch.equal(found[:, number], cut.permute(0, 2, 3, 4, 1).flatten(1, 3))
                number += 1


@pytest.mark.parametrize("normalize", [True, False])
def test_the_loss_is_the_squared_error_at_hidden_tubelets(normalize):
    task, data = build(normalize_targets=normalize), clips()
    torch.manual_seed(1)
    loss = task({"clip": data})["loss"].item()
    torch.manual_seed(1)
    shown, hidden = tube_masks(3, (2, 2, 4), 0.75, data.device)
    prepared = task.prepare(data)
    with torch.no_grad():
        encoded = task.backbone.encode(take(task.backbone.tokens(prepared), shown))
        predicted = task.decode(encoded, shown, hidden, (2, 2, 4)).numpy()
    whole, errors = tubelets(prepared, (2, 4, 4)).numpy().astype(float), []
    for n in range(3):
        for i, at in enumerate(hidden[n].tolist()):
            pixels = whole[n, at]
            if normalize:
                pixels = (pixels - pixels.mean(0)) / np.sqrt(pixels.var(0, ddof=1) + 1e-6)
            errors.append((predicted[n, i] - pixels.ravel()) ** 2)
    assert loss == pytest.approx(np.mean(errors), rel=1e-5)


def test_what_is_hidden_does_not_reach_the_prediction():
    task, data = build().eval(), clips()
    shown, hidden = tube_masks(3, (2, 2, 4), 0.75, data.device)
    prepared = task.prepare(data)

    def predict(pixels):
        return task.decode(task.backbone.encode(take(task.backbone.tokens(pixels), shown)), shown, hidden, (2, 2, 4))

    changed = prepared.clone()
    for n in range(3):
        for at in hidden[n].tolist():
            t, h, w = at // 8, at % 8 // 4, at % 4
            changed[n, :, 2 * t : 2 * t + 2, 4 * h : 4 * h + 4, 4 * w : 4 * w + 4] = 9
    torch.testing.assert_close(predict(changed), predict(prepared))
    assert not torch.allclose(predict(prepared + 1), predict(prepared))


def test_the_embedding_is_that_of_the_whole_clip():
    task, data = build().eval(), clips()
    torch.testing.assert_close(task.predict({"clip": data})["embedding"], task.backbone(task.prepare(data)))


def test_it_learns_to_fill_in_one_clip():
    task, data = build(normalize_targets=False, mask_ratio=0.5), clips(1).expand(8, -1, -1, -1, -1)
    optimizer = torch.optim.Adam(task.parameters(), 0.01)
    losses = []
    for _ in range(60):
        loss = task({"clip": data})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="C3DTiny has no tokens to mask; use video/vit"):
        MAE(C3DTiny())
    with pytest.raises(ValueError, match="mask_ratio must lie between 0 and 1"):
        build(mask_ratio=1.0)
    with pytest.raises(ValueError, match="decoder_dim must be a multiple of 6"):
        build(decoder_dim=16)
