"""The page of answers: read back as a browser would, and its pictures decoded."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from search_data import COLOURS, write_pictures

from tag_core.errors import UnreadableInput, UserError
from tag_core.records import Record
from tag_plugins_search.answers import search
from tag_plugins_search.embeddings import labelled
from tag_plugins_search.evaluation import evaluate
from tag_plugins_search.page import MOST, write_page
from tag_plugins_search.store import IndexFolder
from tag_plugins_search.thumbnails import thumbnail


class Page(HTMLParser):
    """Figures in order: class, text, and the colour in the middle of the picture."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.figures: list[tuple[str, str, list[str]]] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "figure":
            self.figures.append((found.get("class") or "", "", []))
        elif tag == "img":
            self.figures[-1][2].append(str(found["src"]))
        assert tag not in ("script", "iframe", "link"), "a page that fetches or runs something"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.figures:
            kind, text, pictures = self.figures[-1]
            self.figures[-1] = (kind, f"{text} {' '.join(data.split())}", pictures)


def picture(address: str) -> np.ndarray:
    head, _, data = address.partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def middle(address: str) -> tuple[int, ...]:
    pixels = picture(address)
    return tuple(pixels[pixels.shape[0] // 2, pixels.shape[1] // 2])


def near(colour: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(colour, other, strict=True)) < 12


def test_a_rank_list_shows_what_was_found_and_whether_it_is_right(tmp_path: Path) -> None:
    records = list(labelled(iter(write_pictures(tmp_path / "pictures", 2)), "folder"))
    index = IndexFolder.build(tmp_path / "colours", records)
    queries = list(labelled(iter(write_pictures(tmp_path / "queries", 1)), "folder"))
    write_page(tmp_path / "page.html", search(index, queries, 3), index)
    page = Page(tmp_path / "page.html")
    assert [kind for kind, _, _ in page.figures] == ["query", "right", "right", "wrong"] * 3
    for number, (name, colour) in enumerate(COLOURS.items()):
        query, first, second, third = page.figures[4 * number : 4 * number + 4]
        assert f"Query {number + 1}" in query[1]
        assert name in query[1]
        assert all(near(middle(address), colour) for figure in (query, first, second) for address in figure[2])
        assert not near(middle(third[2][0]), colour)
        distances = [float(re.findall(r"\d\.\d{4}", text)[0]) for _, text, _ in (first, second, third)]
        assert distances == sorted(distances)
        assert "1 right" in first[1]
        assert "3 wrong" in third[1]
    text = " ".join(page.text.split())
    assert "6 entries in search/flat" in text
    assert "Of 3 whose label another entry has, the nearest other entry is right for 3 (100.0 %)" in text


def test_without_labels_nothing_is_called_right_or_wrong(tmp_path: Path) -> None:
    records = write_pictures(tmp_path / "pictures", 1)
    index = IndexFolder.build(tmp_path / "colours", records)
    write_page(tmp_path / "page.html", search(index, write_pictures(tmp_path / "queries", 1), 2), index)
    page = Page(tmp_path / "page.html")
    assert {kind for kind, _, _ in page.figures} == {"query", ""}
    assert "right" not in page.text.partition("</style>")[2]


def test_the_page_counts_as_the_scores_do(tmp_path: Path) -> None:
    records = list(labelled(iter(write_pictures(tmp_path / "pictures", 2)), "folder"))
    for record in records[1::2]:
        record.embedding = (-np.array(record.embedding)).tolist()  # the nearest other entry is of another colour
    records[0].truth = None
    index = IndexFolder.build(tmp_path / "index", records)
    new = Record(source="new.png", embedding=records[2].embedding, truth="unheard of")
    seen = Record(source="seen.png", embedding=records[3].embedding, truth="green")
    queries = [replace(record) for record in (*records, new, seen)]
    scores = evaluate(index, queries)
    assert (scores["labelled"], scores["recall@1"]) == (5, 0.2)
    write_page(tmp_path / "page.html", search(index, queries, 3), index)
    page = Page(tmp_path / "page.html")
    told = "Of 5 whose label another entry has, the nearest other entry is right for 1 (20.0 %)"
    assert told in " ".join(page.text.split())
    cards = [page.figures[start : start + 4] for start in range(0, 4 * len(queries), 4)]
    assert {kind for card in (cards[0], cards[1], cards[6]) for kind, _, _ in card[1:]} == {""}, "not counted"
    for card in cards[2:6]:
        assert card[1][0] == ""
        assert "1 itself" in card[1][1]
    assert cards[7][1][0] == "right"


def test_odd_names_lost_files_and_unreadable_queries_are_shown_as_what_they_are(tmp_path: Path) -> None:
    odd = "<script>alert(1)</script>.jpg"
    index = IndexFolder.build(tmp_path / "index", [Record(source=odd, embedding=[1.0, 0.0])])
    queries = [Record(source="lost.jpg", embedding=[1.0, 0.0]), Record(source="bad.jpg", error="not a picture")]
    assert write_page(tmp_path / "page.html", search(index, queries), index) == 2
    page = Page(tmp_path / "page.html")
    assert len(page.figures) == 3
    assert odd in page.figures[1][1]
    for name in (odd, "lost.jpg"):
        assert f"No picture: {os.path.abspath(name)}: No such file or directory" in page.text
    assert "No picture: not a picture" in page.text
    assert "Not searched: not a picture" in page.text


def test_pictures_are_found_from_any_folder_where_the_index_was_built_with_relative_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "built").mkdir()
    monkeypatch.chdir(tmp_path / "built")
    records = write_pictures(Path("pictures"), 1)
    records.append(Record(source=f"{records[0].source}#2", embedding=[1.0, 1.0, 1.0]))
    IndexFolder.build("index", records)
    query = write_pictures(tmp_path / "elsewhere" / "queries", 1)[0]
    monkeypatch.chdir(tmp_path / "elsewhere")
    index = IndexFolder.open("../built/index")
    query.source = os.path.relpath(query.source)
    assert write_page("page.html", search(index, [query]), index) == 0
    assert Path("page.html").read_text().count("data:image/jpeg") == 5
    assert write_page("page.html", search(index, records[:1]), index) == 0, "records as queries"
    shutil.move("../built/pictures", "pictures")
    query = write_pictures(Path("more"), 1)[0]
    assert write_page("page.html", search(index, [query]), index) == 0


def test_a_page_replaces_a_page_and_nothing_else(tmp_path: Path) -> None:
    records = write_pictures(tmp_path / "pictures", 1)
    index = IndexFolder.build(tmp_path / "index", records)
    (tmp_path / "page.html").touch()
    for _ in range(2):
        write_page(tmp_path / "page.html", [], index)
    (tmp_path / "mine.html").write_text("<title>Holidays</title>")
    for file in (Path(records[0].source), tmp_path / "mine.html"):
        before = file.read_bytes()
        with pytest.raises(UserError, match="is there already, and is no page of 'tag-run search query'; name a new"):
            write_page(file, [], index)
        assert file.read_bytes() == before


def test_the_page_says_what_its_distances_are(tmp_path: Path) -> None:
    records = write_pictures(tmp_path / "pictures", 1)
    for metric, reranked, told in (
        ("cosine", False, "cosine, nearest first"),
        ("euclidean", False, "distances are Euclidean, nearest first"),
        ("cosine", True, "distances are of re-ranking, by shared neighbours, nearest first"),
    ):
        index = IndexFolder.build(tmp_path / "index", records, metric=metric, replace=True)
        write_page(tmp_path / "page.html", search(index, write_pictures(tmp_path / told, 1)), index, reranked)
        assert told in " ".join(Page(tmp_path / "page.html").text.split())


def test_a_page_of_many_queries_stays_one_that_a_browser_opens(tmp_path: Path) -> None:
    records = write_pictures(tmp_path / "pictures", 1)
    index = IndexFolder.build(tmp_path / "index", records)
    many = (Record(source=records[0].source, embedding=records[0].embedding) for _ in range(MOST + 5))
    write_page(tmp_path / "page.html", search(index, many, 1), index)
    page = Page(tmp_path / "page.html")
    assert len(page.figures) == 2 * MOST
    assert f"{MOST + 5} queries, the first {MOST} are shown" in " ".join(page.text.split())


def test_a_box_is_cut_out_of_its_picture_and_drawn(tmp_path: Path) -> None:
    pixels = np.full((200, 300, 3), (30, 60, 200), np.uint8)
    pixels[50:100, 100:180] = (200, 30, 30)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    cut = picture(thumbnail({"source": f"{tmp_path}/a.png#2", "box": [100, 50, 180, 100]}))
    assert cut.shape == (74, 104, 3)  # 80 x 50 pixels and 12 more on each side
    assert near(tuple(cut[37, 52]), (200, 30, 30))
    assert near(tuple(cut[5, 5]), (30, 60, 200))
    edge = cut[37, 10:15]
    assert (abs(edge - np.array([255, 176, 0])).max(-1) < 90).any(), "no line at the left edge of the box"
    with pytest.raises(UnreadableInput, match="outside of its picture"):
        thumbnail({"source": str(tmp_path / "a.png"), "box": [400, 50, 480, 100]})


def test_of_a_video_the_part_that_was_looked_at_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=10, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "rgb24"
        for level in range(0, 200, 10):
            frame = np.full((64, 64, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())

    def grays(about: dict[str, object]) -> list[int]:
        pixels = picture(thumbnail({"source": str(path), **about}))
        height, width = pixels.shape[:2]
        if height < 100:
            return [int(pixels[height // 2, width // 2, 0])]
        return [int(pixels[y, x, 0]) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]

    assert grays({}) == pytest.approx([0, 60, 130, 190], abs=4)
    assert grays({"time": [1.0, 1.6]}) == pytest.approx([100, 120, 140, 160], abs=4)
    assert grays({"time": 1.5}) == pytest.approx([150], abs=4)
    assert grays({"frame": 7}) == pytest.approx([70], abs=4)
