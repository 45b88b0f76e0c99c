"""``tag-run predict video/s3d weights=FILE`` on real videos gives torchvision's logits on the same frames.

The command is the recipe's own but for the clip's length: 128 frames of eleven videos take minutes on two
cores. Set TAG_FULL_S3D=1 for the whole of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.video import S3D_Weights, s3d

from tag_core.config import resolve
from tag_core.engine.data import collate
from tag_core.engine.distributed import Cpu
from tag_core.engine.session import task_with_weights

VIDEOS = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "video" / "videos"
FRAMES = 128 if os.environ.get("TAG_FULL_S3D") else 16
SHORT = [] if FRAMES == 128 else [f"data.val.clip_len={FRAMES}", f"data.test.clip_len={FRAMES}"]


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    """torchvision's S3D with random weights, its batch norms measured on a clip: else all videos look alike."""
    torch.manual_seed(0)
    model = s3d(num_classes=400)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    nn.init.normal_(model.classifier[1].weight, std=0.002)
    with torch.no_grad():
        model.features.train()(F.interpolate(torch.randn(4, 3, 5, 14, 14), size=(16, 160, 160), mode="trilinear"))
    return model.eval()


@pytest.fixture(scope="module")
def weights(reference: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "s3d.pth"
    torch.save(reference.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real ones where they are here, else three made on the spot."""
    if VIDEOS.is_dir():
        return VIDEOS
    folder = tmp_path_factory.mktemp("videos")
    for number, (frames, width, height) in enumerate(((40, 96, 64), (7, 64, 80), (20, 160, 120))):
        picture = np.random.default_rng(number).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for shift in range(frames):
                image = np.roll(picture, shift, axis=1).repeat(8, 0).repeat(8, 1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
            container.mux(stream.encode())
    return folder


def decode(path: Path) -> np.ndarray:
    """Every frame of a sequential decode, uint8 [T, H, W, 3], turned as its metadata say."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        return np.stack([np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90) for f in container.decode(stream)])


def central_clip(frames: np.ndarray) -> np.ndarray:
    """FRAMES frames, every second one, in the middle of the video, which is repeated where it is too short."""
    start = max(len(frames) - 2 * (FRAMES - 1) - 1, 0) // 2
    return frames[(start + 2 * np.arange(FRAMES)) % len(frames)]


def by_torchvision(model: nn.Module, path: Path) -> Tensor:
    """The logits [400] of the published preprocessing and model, in a few lines of their own."""
    clip = torch.from_numpy(np.ascontiguousarray(central_clip(decode(path)))).permute(0, 3, 1, 2)
    prepared = S3D_Weights.KINETICS400_V1.transforms()(clip)
    with torch.no_grad():
        return model(prepared[None])[0]


def records_of(weights: Path, folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tag_core.cli.main", "predict", "video/s3d", f"weights={weights}", *SHORT]
    options = ["task.top_k=400", "eval.workers=1", str(folder)]
    result = subprocess.run([*command, *options], capture_output=True, text=True, timeout=1800, check=False)
    assert result.returncode == 0, result.stderr
    count = len(list(folder.iterdir()))
    assert f"read {count} of {count} inputs" in result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_every_video_gets_one_record_with_torchvisions_scores(
    reference: nn.Module, weights: Path, videos: Path
) -> None:
    records = records_of(weights, videos)
    assert [record["source"] for record in records] == sorted(map(str, videos.iterdir()))
    names = S3D_Weights.KINETICS400_V1.meta["categories"]
    logits = {path: by_torchvision(reference, path) for path in videos.iterdir()}
    for record in records:
        assert "error" not in record
        assert sorted(record["labels"]) == sorted(names)
        expected = logits[Path(record["source"])]
        order = [names.index(label) for label in record["labels"]]
        # A softmax forgets the sum of the logits: what it remembers is compared.
        found = torch.tensor(record["scores"]).log()
        torch.testing.assert_close(found, F.log_softmax(expected, 0)[order], rtol=1e-4, atol=1e-4)
    assert torch.stack([*logits.values()]).std(dim=0).mean() > 0.1, "the videos cannot be told apart"


def test_the_logits_themselves_are_torchvisions(reference: nn.Module, weights: Path, videos: Path) -> None:
    recipe = resolve("video/s3d", [f"weights={weights}", *SHORT], needs=())
    task, classes = task_with_weights(recipe, Cpu())
    assert classes == S3D_Weights.KINETICS400_V1.meta["categories"]
    paths = sorted(videos.iterdir(), key=lambda path: path.stat().st_size)[:3]
    data = recipe.data["test"].with_options(source=list(map(str, paths)), labelled=False).build()
    for index, path in enumerate(paths):
        with torch.no_grad():
            found = task.predict(collate([data[index]]))["logits"][0]
        torch.testing.assert_close(found, by_torchvision(reference, path), rtol=1e-4, atol=1e-4)
