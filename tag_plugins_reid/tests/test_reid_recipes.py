import json

import numpy as np
import pytest
import torch
from PIL import Image

from tag_core.config import resolve
from tag_plugins_reid.plugin import tag_recipes
from tag_plugins_reid.tasks.pictures import takes

SIZES = {
    "softmax": (256, 128),
    "triplet": (256, 128),
    "bot": (256, 128),
    "pcb": (384, 128),
    "arcface": (256, 256),
    "arcface-xbm": (256, 256),
    "taobao": (374, 214),
    "omniglot": (40, 40),
    "small": (64, 64),
}
QUICK = ["train.epochs=2", "train.workers=0", "eval.workers=0", "train.batch_size=8", "train.validate_every=1"]
TINY = ["task.backbone.width=4", "task.backbone.depth=2", "task.dim=8", "train.precision=fp32", *QUICK]


def make(folder, names):
    """Six pictures of each identity: stripes of two colours of its own, with noise."""
    rng = np.random.default_rng(len(names))
    for name in names:
        colours = rng.integers(0, 256, (2, 3))
        (folder / name).mkdir(parents=True)
        for number in range(6):
            picture = np.repeat(colours, 45, axis=0)[:, None] + rng.normal(0, 10, (90, 50, 3))
            path = folder / name / f"{number:04d}_c{number % 2 + 1}s1_00000{number}_00.png"
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path)
    return str(folder)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Folders with other people for training and for validation."""
    folder = tmp_path_factory.mktemp("people")
    return make(folder / "train", ["ann", "bo", "cy", "di"]), make(folder / "val", ["eve", "flo", "guy"])


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_hands_its_network_pictures_of_the_published_size(name, people):
    options = ["data.train=reid/folder", "data.val=reid/folder", f"data.train.source={people[0]}"]
    recipe = resolve(f"reid/{name}", options)
    for part in ("train", "val", "test"):
        data = recipe.data[part].with_options(source=people[0], camera=None)
        assert data.build()[0]["image"].shape == (3, *SIZES[name])


@pytest.mark.parametrize("name", ["softmax", "triplet", "bot", "pcb"])
def test_recipes_for_people_validate_on_queries_and_gallery(name):
    recipe = resolve(f"reid/{name}", ["data.train.source=Market-1501", "data.val.source=Market-1501"])
    assert [recipe.data[part].options["split"] for part in ("train", "val", "test")] == ["train", "test", "test"]
    assert recipe.holdout == 0


@pytest.mark.parametrize("name", SIZES)
def test_a_recipes_loss_finds_what_it_takes(name):
    options = {"bot": {"logits", "features"}, "triplet": {"features"}, "softmax": {"logits"}, "pcb": {"logits"}}
    with torch.device("meta"):
        task = resolve(f"reid/{name}", needs=()).task.build(classes=["a", "b"])
    assert takes(task.loss) == task.wanted == options.get(name, {"cosines"})
    assert (task.head is None) == (name == "triplet")


def test_every_recipe_is_looked_at_here():
    assert {recipe.name for recipe in tag_recipes()} == set(SIZES)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["sampler=reid/identities", 'task.loss={name="reid/triplet",margin="soft"}'],
        ["sampler=reid/identities", 'task.loss={name="reid/sum",losses=["core/cross-entropy","reid/triplet"]}'],
        ['task.loss={name="reid/xbm-softmax",loss="reid/arcface",dim=8,size=16}'],
        ['task.loss={name="reid/xbm",loss="reid/contrastive",dim=8,size=16}', "task.turns=4"],
        ['task={name="reid/pcb",parts=2,dim=8,loss="core/cross-entropy",backbone={name="reid/small"}}'],
    ],
    ids=["arcface", "triplet", "sum", "xbm-softmax", "xbm", "pcb"],
)
def test_training_is_validated_on_people_never_seen_and_keeps_the_best(options, people, tmp_path):
    from tag_core import train

    tiny = [option for option in TINY if "task.dim" not in option or not any("reid/pcb" in each for each in options)]
    data = [f"data.train.source={people[0]}", f"data.val.source={people[1]}"]
    trained = train("reid/small", [*data, *options, *tiny], out=tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    validated = [row for row in rows if "map" in row]
    assert len(validated) == 2
    assert all(0 < row["map"] <= 1 and "val_loss" not in row for row in validated)
    assert trained.classes == ["ann", "bo", "cy", "di"]
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    assert best["classes"] == trained.classes


def test_a_run_predicts_embeddings_and_evaluates_queries_against_a_gallery(people, tmp_path):
    from tag_core import evaluate, predict, train

    train("reid/small", [f"data.train.source={people[0]}", *TINY], out=tmp_path / "run")
    records = list(predict(tmp_path / "run", people[1], ["output=embedding"]))
    assert len(records) == 18
    assert all(np.linalg.norm(record.embedding) == pytest.approx(1, abs=1e-5) for record in records)
    options = [f"data.test.source={people[1]}", f"data.test.gallery={people[1]}", "eval.workers=0"]
    found = evaluate(tmp_path / "run", options, out=tmp_path / "eval")
    assert found.scores["rank1"] == 1  # each query is in the gallery, too
