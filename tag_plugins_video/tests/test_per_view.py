import torch

from tag_plugins_video.transforms.colour import Flip
from tag_plugins_video.transforms.crop import RandomCrop
from tag_plugins_video.transforms.per_view import PerView


def test_each_view_has_a_random_place_of_its_own_and_all_its_frames_the_same():
    plane = torch.arange(64 * 64).view(64, 64).expand(20, 3, 1, 64, 64)
    torch.manual_seed(0)
    crops = PerView([RandomCrop(8)])(plane)
    assert crops.shape == (20, 3, 1, 8, 8)
    assert len(torch.unique(crops[:, 0, 0, 0, 0])) > 15
    assert torch.equal(crops[:, 0], crops[:, 2])
    torch.manual_seed(0)
    assert len(torch.unique(RandomCrop(8)(plane)[:, 0, 0, 0, 0])) == 1


def test_views_keep_their_order_through_several_transforms():
    clips = torch.arange(5).view(5, 1, 1, 1, 1).expand(5, 2, 3, 16, 16)
    out = PerView([RandomCrop(8), Flip(1.0)])(clips)
    assert out[:, 0, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_single_clip_is_transformed_once():
    clip = torch.randn(4, 3, 16, 16)
    torch.manual_seed(0)
    expected = RandomCrop(8)(clip)
    torch.manual_seed(0)
    assert torch.equal(PerView([RandomCrop(8)])(clip), expected)
