import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.video import S3D_Weights

from tag_core.errors import UserError
from tag_plugins_video.transforms.colour import ColorJitter, Flip, Normalize
from tag_plugins_video.transforms.crop import CenterCrop, RandomCrop, RandomResizedCrop
from tag_plugins_video.transforms.multi_scale_crop import MultiScaleCrop
from tag_plugins_video.transforms.resize import Resize
from tag_plugins_video.transforms.views import TenCrop, ThreeCrop


def coordinates(height, width, frames=2):
    """[T, 3, H, W] whose red is the row and green the column, so that a crop tells where it was."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    picture = torch.stack([rows, columns, torch.zeros_like(rows)]).to(torch.uint8)
    return picture.expand(frames, -1, -1, -1).contiguous()


def corner(clip):
    return tuple(clip[..., :2, 0, 0].reshape(-1, 2)[0].tolist())


def noise(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [
        ({"short_side": 100}, (240, 340), (100, 141)),
        ({"short_side": 100}, (340, 240), (141, 100)),
        ({"size": (30, 50)}, (240, 340), (30, 50)),
        ({"short_side": 256, "aspect": "4:3"}, (240, 340), (256, 341)),
        ({"short_side": 256, "aspect": "4:3"}, (500, 340), (341, 256)),
        ({"short_side": 256, "aspect": "4:3"}, (300, 300), (256, 341)),
        ({"short_side": 240, "aspect": "4:3"}, (240, 426), (240, 426)),  # fits already: unchanged
    ],
)
def test_resize_gives_the_size_asked_for(options, size, expected):
    assert Resize(**options)(noise(2, 3, *size)).shape == (2, 3, *expected)


def test_resize_is_close_to_pillow():
    frame = noise(3, 60, 90)
    ours = Resize(short_side=20)(frame[None])[0]
    pillow = Image.fromarray(frame.permute(1, 2, 0).numpy()).resize((30, 20), Image.Resampling.BILINEAR)
    difference = np.abs(ours.permute(1, 2, 0).numpy().astype(int) - np.asarray(pillow).astype(int))
    assert difference.max() <= 1


def test_resize_without_antialias_and_crop_equal_the_published_preset_of_s3d():
    clip = noise(3, 3, 120, 170)
    preset = S3D_Weights.KINETICS400_V1.transforms()
    ours = CenterCrop(224)(Resize(size=(256, 256), antialias=False)(clip))
    normalized = Normalize(tuple(preset.mean), tuple(preset.std))(ours)
    torch.testing.assert_close(normalized.transpose(0, 1), preset(clip), rtol=0, atol=1e-6)


def test_resize_takes_views():
    clip = noise(2, 4, 3, 20, 30)
    assert torch.equal(Resize(short_side=10)(clip)[1], Resize(short_side=10)(clip[1]))


def test_center_crop_lies_in_the_middle():
    crop = CenterCrop(10)(coordinates(20, 31))
    assert crop.shape == (2, 3, 10, 10)
    assert corner(crop) == (5, 10)  # round(10.5) is 10


def test_random_crops_reach_every_place_and_are_the_same_for_all_frames():
    torch.manual_seed(0)
    crops = [RandomCrop(10)(coordinates(11, 12)) for _ in range(100)]
    assert {corner(crop) for crop in crops} == {(i, j) for i in range(2) for j in range(3)}
    assert all(torch.equal(crop[0], crop[1]) for crop in crops)


@pytest.mark.parametrize("crop", [CenterCrop(30), RandomCrop(30), ThreeCrop(30), TenCrop(30)])
def test_a_crop_larger_than_the_frame_says_what_to_do(crop):
    with pytest.raises(UserError, match=r"30 pixels do not fit into frames of 31x20; put .*short_side = 30"):
        crop(coordinates(20, 31))


def test_random_resized_crop_keeps_to_scale_and_ratio():
    torch.manual_seed(0)
    crop = RandomResizedCrop(16, scale=(0.25, 0.25), ratio=(1.0, 1.0))
    for _ in range(20):
        clip = crop(coordinates(64, 64))
        assert clip.shape == (2, 3, 16, 16)
        assert torch.equal(clip[0], clip[1])
        assert abs(int(clip[0, 0, -1, 0]) - int(clip[0, 0, 0, 0]) - 30) <= 1  # 32 rows shrunk to 16


def test_multi_scale_crop_has_the_published_sizes():
    crop = MultiScaleCrop(224)
    sides = {1: 256, 0.875: 224, 0.75: 192, 0.66: 168}
    s = list(sides.values())
    expected = [(s[i], s[j]) for i in range(4) for j in range(4) if abs(i - j) <= 1]
    assert crop.sizes(256, 340) == expected
    assert len(expected) == 10
    assert (224, 224) in MultiScaleCrop(224).sizes(257, 340)  # int(257 * 0.875) = 224
    assert MultiScaleCrop(224, scales=[0.88]).sizes(256, 340) == [(224, 224)]  # 225 is near enough


def test_multi_scale_crop_has_the_published_places():
    places = MultiScaleCrop(224).places(32, 116)  # steps of 8 and 29
    assert len(places) == len(set(places)) == 13
    assert places[:5] == [(0, 0), (0, 116), (32, 0), (32, 116), (16, 58)]
    assert {(8, 29), (8, 87), (24, 29), (24, 87)} < set(places)
    assert {(16, 0), (16, 116), (32, 58), (0, 58)} < set(places)
    assert MultiScaleCrop(224, more_places=False).places(32, 116) == places[:5]


def test_multi_scale_crop_cuts_where_it_says_and_resizes():
    torch.manual_seed(0)
    crop = MultiScaleCrop(16, scales=[0.5])
    corners = {corner(crop(coordinates(32, 48))) for _ in range(200)}
    assert corners == set(crop.places(16, 32))
    free = MultiScaleCrop(16, scales=[0.5], fixed=False)
    assert len({corner(free(coordinates(32, 48))) for _ in range(200)}) > 13


def test_multi_scale_crop_of_a_tiny_frame_still_works():
    assert MultiScaleCrop(8)(noise(2, 3, 1, 1)).shape == (2, 3, 8, 8)
    assert MultiScaleCrop(8)(noise(2, 3, 7, 9)).shape == (2, 3, 8, 8)


def test_three_crop_runs_along_the_long_side():
    wide = ThreeCrop()(coordinates(20, 31))
    assert wide.shape == (3, 2, 3, 20, 20)
    assert [corner(view) for view in wide] == [(0, 0), (0, 5), (0, 11)]
    tall = ThreeCrop(18)(coordinates(31, 20))
    assert [corner(view) for view in tall] == [(0, 1), (6, 1), (13, 1)]


def test_ten_crop_is_five_places_of_the_clip_and_of_its_mirror_image():
    views = TenCrop(10)(coordinates(20, 30))
    assert views.shape == (10, 2, 3, 10, 10)
    assert [corner(view) for view in views[:5]] == [(0, 0), (0, 20), (10, 0), (10, 20), (5, 10)]
    assert torch.equal(views[5:], TenCrop(10)(coordinates(20, 30).flip(-1))[:5])


def test_crops_of_several_clips_stay_next_to_their_clip():
    clips = torch.stack([coordinates(20, 30), coordinates(20, 30) + 100])
    views = TenCrop(10)(clips)
    assert views.shape == (20, 2, 3, 10, 10)
    assert torch.equal(views[10:], TenCrop(10)(clips[1]))


def test_flip_mirrors_all_frames_or_none():
    torch.manual_seed(0)
    clip = noise(4, 3, 5, 6)
    flipped = [Flip()(clip) for _ in range(200)]
    mirrored = [torch.equal(out, clip.flip(-1)) for out in flipped]
    assert all(m or torch.equal(out, clip) for m, out in zip(mirrored, flipped, strict=True))
    assert 60 < sum(mirrored) < 140
    assert torch.equal(Flip(p=0)(clip), clip)


def test_color_jitter_changes_all_frames_alike():
    torch.manual_seed(0)
    clip = noise(1, 3, 8, 8).expand(3, -1, -1, -1)
    out = ColorJitter(hue=0.1)(clip)
    assert out.dtype == torch.uint8
    assert not torch.equal(out, clip)
    assert torch.equal(out[0], out[2])


def test_normalize_gives_float_minus_mean_over_deviation():
    clip = noise(2, 3, 4, 4)
    out = Normalize((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))(clip)
    expected = (clip.double() / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.1, 0.2, 0.3]).view(
        3, 1, 1
    )
    torch.testing.assert_close(out, expected.float())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Resize(), "short_side or size, one of them"),
        (lambda: Resize(short_side=0), "at least 1 pixel"),
        (lambda: CenterCrop(0), "at least 1 pixel"),
        (lambda: RandomResizedCrop(8, scale=(1.0, 0.5)), "scale must be two positive numbers in order"),
        (lambda: MultiScaleCrop(8, scales=[1.5]), "scales must lie in"),
        (lambda: Flip(p=2), "p must lie in"),
    ],
)
def test_impossible_options_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
