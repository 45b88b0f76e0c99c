"""Weights from files, addresses and published names: what fits is loaded, nothing is executed."""

from __future__ import annotations

import hashlib
import http.server
import os
import pickle
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tag_core.engine.download import download
from tag_core.engine.weights import PublishedWeights, Weights, fit, load_weights, read_file, read_weights
from tag_core.errors import WeightsError


class Encoder(nn.Module):
    layouts: ClassVar[dict[str, Any]] = {
        "other": lambda state: {"backbone.conv.weight": state["stem.w"], "head.weight": state["fc.w"]},
        "nothing": lambda state: {},
    }

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Linear(3, 2, bias=False)


class Task(nn.Module):
    published_weights: ClassVar[dict[str, PublishedWeights]] = {}

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.backbone, self.head = Encoder(), nn.Linear(2, classes, bias=False)
        self.norm = nn.BatchNorm1d(2, affine=False)


def task(classes: int = 4) -> Task:
    torch.manual_seed(classes)
    return Task(classes)


def same(one: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in one.state_dict().items())


# --- files


WRAPPINGS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
    "model": lambda state: {"model": state, "args": None},
    "parallel": lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    "average first": lambda state: {"model": {k: v + 1 for k, v in state.items()}, "ema": state},
    "no average": lambda state: {"ema": {}, "model": state},
    "an average of another kind": lambda state: {"ema": {"decay": 0.9}, "model": state},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_state_dict_is_found_wherever_it_is_kept(tmp_path: Path, wrapping: str) -> None:
    source, target = task().state_dict(), Task()
    torch.save(WRAPPINGS[wrapping](source), tmp_path / "w.pt")
    report = load_weights(read_file(tmp_path / "w.pt"), target, strict=True)
    assert same(target, source)
    assert report == "5 tensors loaded (layout tag)"


def test_safetensors_are_read(tmp_path: Path) -> None:
    source, target = task().state_dict(), Task()
    save_file(source, tmp_path / "w.safetensors")
    load_weights(read_file(tmp_path / "w.safetensors"), target, strict=True)
    assert same(target, source)


def test_class_names_come_along(tmp_path: Path) -> None:
    torch.save({"model": task().state_dict(), "classes": ["a", "b", "c", "d"]}, tmp_path / "w.pt")
    assert read_file(tmp_path / "w.pt").classes == ["a", "b", "c", "d"]


class Exploit:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))])
def test_code_in_a_weights_file_is_refused_and_not_run(tmp_path: Path, write: Any) -> None:
    path, proof = tmp_path / "w.pt", tmp_path / "proof"
    write({"state_dict": task().state_dict(), "extra": Exploit(proof)}, path)
    with pytest.raises(WeightsError, match="holds Python objects") as caught:
        read_file(path)
    assert not proof.exists()
    assert "weights_only" not in str(caught.value)
    torch.load(path, weights_only=False) if write is torch.save else pickle.loads(path.read_bytes())
    assert proof.is_dir()  # what an ordinary load would have done


def test_a_whole_model_is_refused_with_the_remedy(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"torch\.nn\.modules\.linear\.Linear.*save its state_dict"):
        read_file(tmp_path / "w.pt")


def damaged(folder: Path, kind: str) -> Path:
    path = folder / ("w.safetensors" if "safetensors" in kind else "w.pt")
    save_file(task().state_dict(), path) if "safetensors" in kind else torch.save(task().state_dict(), path)
    whole = path.read_bytes()
    torch.save(task().state_dict(), folder / "old", _use_new_zipfile_serialization=False)
    texts = {"empty": b"", "text": b"hello world", "page": b"<html>not found</html>", "noise": bytes(range(256)) * 9}
    path.write_bytes(
        texts.get(kind, (folder / "old").read_bytes() if kind == "old" else whole)[: -40 if kind not in texts else None]
    )
    return path


@pytest.mark.parametrize("kind", ["truncated", "old", "empty", "text", "page", "noise", "truncated safetensors"])
def test_a_damaged_file_is_named(tmp_path: Path, kind: str) -> None:
    path = damaged(tmp_path, kind)
    with pytest.raises(WeightsError, match=f"^weights {re.escape(str(path))}: damaged"):
        read_file(path)


@pytest.mark.parametrize("content", [{}, {"a": 1}, [1, 2], torch.zeros(3), {"state_dict": {"a": "b"}}])
def test_a_file_without_a_table_of_tensors_is_no_weights(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_file(tmp_path / "w.pt")


def test_a_missing_file_lists_the_published_names(tmp_path: Path) -> None:
    class Known:
        published_weights: ClassVar = {"imagenet": PublishedWeights("http://x/y.pt", "0" * 64)}

    with pytest.raises(WeightsError, match=r"imagenot: no such file; published names: imagenet"):
        read_weights("imagenot", Task, Known)


def test_a_folder_in_place_of_a_file_offers_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "best.pt").touch()
    with pytest.raises(WeightsError, match=r"is a folder, not a weights file; in it: .*old/best\.pt"):
        read_weights(str(tmp_path), Task, None)


def test_a_run_folder_stands_for_its_best_weights_or_else_its_last(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name, value in (("last", 1.0), ("best", 2.0)):
        torch.save({"w": torch.full((1,), value)}, tmp_path / "checkpoints" / f"{name}.pt")
        assert read_weights(str(tmp_path), Task, None).state["w"].item() == value


def test_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(task().state_dict(), tmp_path / "w.pt")
    assert same(task(), read_weights("~/w.pt", Task, None).state)


# --- fitting


def test_a_named_layout_is_used_where_it_fits_better() -> None:
    state = {"stem.w": torch.ones(2, 3), "fc.w": torch.zeros(4, 2), "stem.extra": torch.zeros(1)}
    converted, layout = fit(Weights("x", state), Task())
    assert layout == "other"
    assert converted.keys() == {"backbone.conv.weight", "head.weight"}
    target = task()
    report = load_weights(Weights("x", state), target, strict=False)
    assert report.startswith("2 tensors loaded (layout other); 2 missing: norm")
    assert target.backbone.conv.weight.eq(1).all()


def test_the_report_names_every_key_and_fine_tuning_keeps_what_does_not_fit() -> None:
    state, target = task(classes=7).state_dict(), task(classes=4)
    del state["norm.running_mean"], state["norm.num_batches_tracked"]
    state["decoder.weight"] = torch.zeros(1)
    fresh = target.head.weight.clone()
    report = load_weights(Weights("x", state), target, strict=False)
    assert torch.equal(target.head.weight, fresh)
    assert torch.equal(target.backbone.conv.weight, state["backbone.conv.weight"])
    assert report == (
        "2 tensors loaded (layout tag); 1 missing: norm.running_mean; "
        "1 unexpected: decoder.weight; 1 mismatched: head.weight"
    )


@pytest.mark.parametrize("fault", ["missing", "mismatched"])
def test_prediction_wants_every_tensor(fault: str) -> None:
    state, target = task().state_dict(), task()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    if fault == "missing":
        del state["head.weight"]
    else:
        state["head.weight"] = torch.zeros(9, 2)
    state["backbone.conv.weight"] = torch.ones(2, 3)
    with pytest.raises(WeightsError, match=f"do not fit this model: .*1 {fault}: head.weight"):
        load_weights(Weights("x", state), target, strict=True)
    assert same(target, before)


def test_weights_of_another_model_altogether_are_refused_even_for_fine_tuning() -> None:
    with pytest.raises(WeightsError, match="do not fit"):
        load_weights(Weights("x", {"layer.weight": torch.zeros(1)}), task(), strict=False)


# --- addresses


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content``; ``stop_after`` breaks the connection off, ``ranges`` says whether Range is honoured."""

    daemon_threads = True
    content = b""
    ranges, chunked = True, False
    stop_after: int | None = None
    asked: list[str | None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/models/net.pt?download=true"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if "models" not in self.path:
            return self.send_error(404)
        start = int(asked[6:-1]) if asked and self.server.ranges else 0
        body = self.server.content[start:]
        if asked and self.server.ranges and not body:
            return self.send_error(416)
        self.send_response(206 if asked and self.server.ranges else 200)
        if self.server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body[: self.server.stop_after]
        self.wfile.write(b"%x\r\n%s\r\n" % (len(body), sent) if self.server.chunked else sent)
        if self.server.chunked and sent == body:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True
        return None

    def log_message(self, *arguments: object) -> None:
        """Silence."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TAG_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    torch.save(task().state_dict(), tmp_path / "source.pt")
    with Server(("127.0.0.1", 0), Handler) as httpd:
        httpd.content, httpd.asked = (tmp_path / "source.pt").read_bytes(), []
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


def digest(server: Server) -> str:
    return hashlib.sha256(server.content).hexdigest()


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock")


def test_an_address_with_its_checksum_is_fetched_once(tmp_path: Path, server: Server) -> None:
    for _ in range(2):
        found = read_weights(f"{server.url}#sha256={digest(server).upper()}", Task, None)
        assert same(task(), found.state)
    assert server.asked == [None]
    assert cached(tmp_path) == [f"{digest(server)[:8]}-net.pt"]


def test_published_weights_are_fetched_by_name_and_bring_their_classes(server: Server) -> None:
    class Known:
        published_weights: ClassVar = {"net": PublishedWeights(server.url, digest(server)[:8], classes=("p", "q"))}

    assert read_weights("net", Task, Known).classes == ["p", "q"]


def test_an_address_without_checksum_is_refused(server: Server) -> None:
    with pytest.raises(WeightsError, match="add '#sha256="):
        read_weights(server.url, Task, None)
    assert server.asked == []


@pytest.mark.parametrize("text", ["abc", "d76dad2g", "", "z" * 64])
def test_a_checksum_that_proves_nothing_is_refused(server: Server, text: str) -> None:
    with pytest.raises(WeightsError, match="no SHA-256"):
        download(server.url, text)


def test_a_wrong_checksum_keeps_nothing(tmp_path: Path, server: Server) -> None:
    with pytest.raises(WeightsError, match=r"checksum [0-9a-f]{16}\.\.\. is not 0000"):
        download(server.url, "0" * 64)
    assert cached(tmp_path) == []


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_broken_download_goes_on_where_it_was(tmp_path: Path, server: Server, ranges: bool, chunked: bool) -> None:
    server.ranges, server.chunked, server.stop_after = ranges, chunked, 700
    with pytest.raises(
        WeightsError, match=r"cannot be downloaded to .* \((IncompleteRead|.* broke off).*goes on where"
    ):
        download(server.url, digest(server))
    assert cached(tmp_path) == [f"{digest(server)[:8]}-net.pt.part"]
    left = (tmp_path / "cache" / cached(tmp_path)[0]).stat().st_size
    assert chunked or left == 700
    server.stop_after = None
    assert download(server.url, digest(server)).read_bytes() == server.content
    assert server.asked == [None, f"bytes={left}-" if left else None]
    assert cached(tmp_path) == [f"{digest(server)[:8]}-net.pt"]


def test_a_download_that_was_whole_but_not_yet_accepted_is_taken(tmp_path: Path, server: Server) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{digest(server)[:8]}-net.pt.part").write_bytes(server.content)
    assert download(server.url, digest(server)).read_bytes() == server.content


def test_a_remainder_of_something_else_is_thrown_away(tmp_path: Path, server: Server) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{digest(server)[:8]}-net.pt.part").write_bytes(b"another file")
    with pytest.raises(WeightsError, match="checksum"):
        download(server.url, digest(server))
    assert download(server.url, digest(server)).read_bytes() == server.content


def test_a_cached_file_that_was_damaged_is_fetched_anew(server: Server) -> None:
    path = download(server.url, digest(server))
    content = bytearray(server.content)
    content[100] ^= 1
    path.write_bytes(content)
    assert download(server.url, digest(server)).read_bytes() == server.content


def test_several_processes_that_want_one_file_do_not_mix_their_writing(server: Server) -> None:
    threads = [threading.Thread(target=download, args=(server.url, digest(server))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == [None]


def test_a_file_that_is_not_there_gives_the_servers_answer(server: Server) -> None:
    with pytest.raises(WeightsError, match=r"404: Not Found.*weights=/path/to/net\.pt takes a file"):
        download(server.url.replace("models", "nowhere"), digest(server))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/net.pt", "http://nowhere.invalid/net.pt", "http:///net.pt"])
def test_without_a_network_the_message_says_what_to_do(server: Server, url: str) -> None:
    with pytest.raises(
        WeightsError, match=r"cannot be downloaded to .* \(.+\)\. .*; weights=/path/to/net\.pt takes a file"
    ):
        download(url, "0" * 64)


def test_a_cached_file_needs_no_network(server: Server) -> None:
    path = download(server.url, digest(server))
    assert download("http://127.0.0.1:9/models/net.pt", digest(server)) == path


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TAG_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(WeightsError, match=r"cannot be downloaded .*Not a directory.*; TAG_CACHE names another"):
        download(server.url, digest(server))
