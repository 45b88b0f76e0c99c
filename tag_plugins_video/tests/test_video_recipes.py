from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.video import S3D_Weights, s3d

from tag_core.config import resolve
from tag_core.media.video import read_clip
from tag_plugins_video.models.s3d import S3D
from tag_plugins_video.motion import make_motion_data
from tag_plugins_video.plugin import tag_recipes

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
CLIP = SHARED / "video" / "videos" / "cleaning_pool_32f.mp4"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion") / "data"
    list(make_motion_data(folder, {"train": 24}))
    return str(folder / "train")


@pytest.mark.parametrize("name", [recipe.name for recipe in tag_recipes()])
def test_every_recipe_resolves_with_a_source_and_says_what_it_is_for(name, clips):
    recipe = resolve(f"video/{name}", [f"data.train.source={clips}"])
    assert recipe.summary
    assert {"train", "val", "test"} == set(recipe.data)
    assert recipe.holdout == 0 or not recipe.data["val"].options["random"]
    assert not recipe.data["test"].options["random"]


@pytest.mark.parametrize("name", ["tsn", "s3d"])
def test_the_data_of_a_recipe_comes_in_the_size_its_model_expects(name, clips):
    recipe = resolve(f"video/{name}", [f"data.train.source={clips}"])
    shapes = {key: recipe.data[key].with_options(source=clips).build()[0]["clip"].shape for key in recipe.data}
    frames = {"tsn": {"train": 8, "val": 8, "test": 8}, "s3d": {"train": 64, "val": 128, "test": 128}}
    assert shapes == {key: (count, 3, 224, 224) for key, count in frames[name].items()}


def test_motion_recipes_differ_in_what_they_see_alone(clips):
    motion, frame = (
        resolve(name, [f"data.train.source={clips}"]).to_dict() for name in ("video/motion", "video/motion-frame")
    )
    assert frame["data"]["train"].pop("num_segments") == 1
    assert motion["data"]["train"].pop("num_segments") == 8
    assert frame["data"]["train"] == motion["data"]["train"]
    assert {key for key in motion if motion[key] != frame[key]} == {"summary", "task", "data"}


def test_tsn_trains_on_a_folder_with_nothing_but_its_path(clips, tmp_path):
    from tag_core.api import train

    small = ["task.backbone.encoder=tiny", "train.epochs=1", "train.batch_size=4", "train.workers=0"]
    out = tmp_path / "run"
    trained = train("video/tsn", [f"data.train.source={clips}", *small, "eval.workers=0"], out=str(out))
    assert (out / "checkpoints" / "best.pt").is_file()
    assert len(trained.classes) == 8


@pytest.mark.skipif(not CLIP.is_file(), reason="shared/data is not here")
def test_the_s3d_recipe_computes_what_torchvision_computes_on_a_real_video():
    recipe = resolve("video/s3d", ["data.test.clip_len=14", f"data.train.source={CLIP.parent}"])
    options = {"source": [str(CLIP)], "labelled": False}
    sample = recipe.data["test"].with_options(**options).build()[0]
    torch.manual_seed(0)
    reference = s3d().eval()
    nn.init.normal_(reference.classifier[1].weight)
    task = recipe.task.build(classes=[str(i) for i in range(400)]).eval()
    task.load_state_dict(S3D.layouts["torchvision"](reference.state_dict()))
    frames = read_clip(CLIP, lambda n: range((n - 27) // 2, (n - 27) // 2 + 28, 2)).frames
    with torch.no_grad():
        clip = S3D_Weights.KINETICS400_V1.transforms()(torch.from_numpy(frames).permute(0, 3, 1, 2))
        expected = reference(clip[None])
        logits = task.predict({"clip": sample["clip"][None]})["logits"]
    assert expected.std() > 0.01
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
