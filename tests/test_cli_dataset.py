"""Datasets from the command line: each source as a user asks for it, the audit's exit code, and the
way back.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY, Result
from tests.faulty_server import FaultyServer, body, cached, status
from tests.roboflow_server import KEY, RoboflowServer, make_zip

Cli = Callable[..., Result]
NAMES = ("dress", "pants", "skirt&pants", "skirt", "top")


def picture(seed: int, size: tuple[int, int] = (128, 96)) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    out = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=92)
    return out.getvalue()


def make_yolo(root: Path, count: int) -> Path:
    for sub in ("images", "labels"):
        (root / "train" / sub).mkdir(parents=True)
    for n in range(count):
        (root / f"train/images/p{n}.jpg").write_bytes(picture(n))
        (root / f"train/labels/p{n}.txt").write_text(f"{n % 5} 0.5 0.5 0.4 0.6\n")
    (root / "data.yaml").write_text("train: train/images\nnames: " + json.dumps(list(NAMES)) + "\n")
    return root


def test_flags_of_fetch_dataset(cli: Cli, tmp_path: Path) -> None:
    make_yolo(tmp_path / "src", 10)
    (tmp_path / "src/data.yaml").write_text("train: train/images\nnames: [gown, pants, culottes, skirt, t-shirt]\n")
    maps = ("--map", "t-shirt=top", "--map", "gown=dress")
    done = cli("fetch-dataset", "yolo:src", "--out", "d", *maps, "--counts", "6,2,2", "--json")
    assert done.code == 0, done.err
    counts = done.document["counts"]
    assert (counts["train"], counts["valid"], counts["test"], counts["dress"], counts["top"]) == (6, 2, 2, 2, 2)
    for wrong, words in (("6,2", "--counts needs 3 numbers"), ("6,2,1", "there are 10")):
        done = cli("fetch-dataset", "yolo:src", "--out", "e", *maps, "--counts", wrong)
        assert done.code == 2
        assert words in done.err
    assert cli("fetch-dataset", "yolo:src", "--out", "e", "--map", "t-shirt").code == 2
    assert cli("fetch-dataset", "yolo:src", "--out", "e", "--map", "t-shirt=shirt").code == 2
    assert not (tmp_path / "e").exists()


def test_there_and_back_by_coco_and_voc(cli: Cli, tmp_path: Path) -> None:
    make_yolo(tmp_path / "src", 10)
    assert cli("fetch-dataset", "yolo:src", "--out", "d", "--counts", "6,2,2").code == 0
    before = (tmp_path / "d/annotations.csv").read_text()
    for form in ("coco", "voc"):
        assert cli("dataset", "export", "d", "--to", form, "--out", form).code == 0
        done = cli("fetch-dataset", f"{form}:{form}", "--out", f"from-{form}", "--json")
        assert done.code == 0, done.err
        assert (tmp_path / f"from-{form}/annotations.csv").read_text() == before
        assert cli("dataset", "export", "d", "--to", form, "--out", form).code == 2, "it holds something already"
    assert cli("dataset", "export", "d", "--to", "excel").code == 2
    assert cli("dataset", "export", "d", "--to", "coco").code == 2


def test_strict_stops_on_a_leak_and_on_nothing_else(cli: Cli, tmp_path: Path) -> None:
    make_yolo(tmp_path / "src", 20)
    assert cli("fetch-dataset", "yolo:src", "--out", "d", "--counts", "10,5,5").code == 0
    assert cli("dataset", "audit", "d", "--strict").code == 0
    leaked = next((tmp_path / "d/train/images").iterdir())
    (tmp_path / "d/test/images/leak.jpg").write_bytes(leaked.read_bytes())
    label = (tmp_path / f"d/train/labels/{leaked.stem}.txt").read_text()
    (tmp_path / "d/test/labels/leak.txt").write_text(label)
    done = cli("dataset", "audit", "d", "--strict", "--html", "audit.html", "--json")
    assert done.code == 3
    assert done.document["broken"] == ["exact-duplicate-across-splits"]
    assert "leak.jpg" in (tmp_path / "audit.html").read_text()


def test_a_feed_becomes_products_that_can_be_indexed(cli: Cli, tmp_path: Path) -> None:
    """Check that what failed is a row with its reason, and too much of it exits 3; what there is
    can be built and asked.
    """
    with FaultyServer({f"/{n}.jpg": body(picture(n)) for n in range(3)} | {"/gone.jpg": status(404)}) as server:
        rows = [
            {"sku": f"s{n}", "image_link": server.url(f"/{n}.jpg"), "price": "39,000원", "availability": "in stock"}
            for n in range(3)
        ]
        rows.append({"sku": "s9", "image_link": server.url("/gone.jpg"), "price": "call us"})
        (tmp_path / "feed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        sets = ("--set", "feed.allow_private=true", "--set", "feed.backoff=0.01")
        done = cli("fetch-dataset", "feed:feed.jsonl", "--out", "shop", *sets, "--json")
        assert done.code == 3
        assert done.document["counts"]["unlabelled"] == 3
        assert done.document["dropped"] == {"http-404": 1}
        assert any("call us" in note for note in done.document["sources"][0]["notes"])
        products = [json.loads(line) for line in (tmp_path / "shop/products.jsonl").read_text().splitlines()]
        assert [(row["product_id"], row["price"], row["currency"]) for row in products] == [
            (f"s{n}", 39000, "KRW") for n in range(3)
        ]
        done = cli("fetch-dataset", "feed:feed.jsonl", "--out", "refused", "--json")
        assert done.code == 2, "loopback is refused unless a setting allows it, and then nothing is left"
        assert "refused-address" in done.err
    models = ("--detector", TINY / "detector", "--embedder", TINY / "embedder")
    built = cli("build-index", done_products := tmp_path / "shop/products.jsonl", "--index", "c", *models, "--json")
    assert built.code == 0, built.err
    assert done_products.is_file()
    assert built.document["products"] == 3


def test_a_feed_of_tonight_fetches_only_what_changed(cli: Cli, tmp_path: Path) -> None:
    with FaultyServer(
        {"/same.jpg": cached(picture(0), '"1"'), "/new.jpg": [body(picture(1)), body(picture(2))]}
    ) as server:
        rows = [{"sku": name, "image_link": server.url(f"/{name}.jpg")} for name in ("same", "new")]
        (tmp_path / "feed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        photos = []
        for night in ("one", "two"):
            done = cli("fetch-dataset", "feed:feed.jsonl", "--out", night, "--set", "feed.allow_private=true", "--json")
            assert done.code == 0, done.err
            products = [json.loads(line) for line in (tmp_path / night / "products.jsonl").read_text().splitlines()]
            photos.append([(tmp_path / night / row["image"]).read_bytes() for row in products])
        assert photos[0][0] == photos[1][0]
        assert photos[0][1] != photos[1][1]
        asked = [headers.get("If-None-Match") for path, headers in server.seen if path == "/same.jpg"]
        assert asked == [None, '"1"']
        assert server.sent["/same.jpg"] == len(picture(0)), "the second night it was not sent again"


def test_an_audit_that_finds_nothing_says_so(cli: Cli, tmp_path: Path) -> None:
    labels = "".join(f"{n} {0.1 + 0.2 * n:.1f} 0.5 0.15 0.5\n" for n in range(len(NAMES))).encode()
    for n, split in enumerate(("train", "valid", "test")):
        for part, name, content in (("images", "jpg", picture(n)), ("labels", "txt", labels)):
            (tmp_path / "d" / split / part).mkdir(parents=True)
            (tmp_path / "d" / split / part / f"p{n}.{name}").write_bytes(content)
    (tmp_path / "d/data.yaml").write_text(
        "train: train/images\nval: valid/images\ntest: test/images\nnames: " + json.dumps(NAMES)
    )
    done = cli("dataset", "audit", "d", "--set", "audit.min_images=0", "--html", "a.html")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-2:] == ["no problems found", "page: a.html"]
    assert "next: fashionrec dataset" not in done.err


@pytest.fixture
def roboflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cli: Cli) -> None:
    pytest.importorskip("roboflow")
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setenv("ROBOFLOW_CONFIG_DIR", str(tmp_path / "nobody-logged-in.json"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def version() -> dict[str, bytes]:
    members = {"data.yaml": b"train: ../train/images\nnames: [dress, pants, 'skirt&pants', skirt, top]\n"}
    for n in range(3):
        members[f"train/images/p{n}_jpg.rf.{n}.jpg"] = picture(n)
        members[f"train/labels/p{n}_jpg.rf.{n}.txt"] = b"4 0.5 0.5 0.4 0.6\n"
    return members


@pytest.mark.usefixtures("roboflow")
def test_a_roboflow_version_is_fetched_once_and_never_prepared_twice(cli: Cli, tmp_path: Path) -> None:
    with RoboflowServer(make_zip(version())) as server:
        sets = ("--set", f"roboflow.api_url={server.url}", "--set", "dataset.resize=letterbox")
        done = cli("fetch-dataset", "roboflow:team/garments/3", "--out", "d", *sets, "--json")
        assert done.code == 0, done.err
        assert done.document["pixels"] == {"resize": "stretch", "imgsz": 640, "equalize": 2.0, "tiles": 8}
        assert done.document["augment"]["mode"] == "done"
        (stored,) = (tmp_path / "data/roboflow").rglob("p0_jpg.rf.0.jpg")
        assert (tmp_path / "d/train/images/p0_jpg.rf.0.jpg").read_bytes() == stored.read_bytes()
        asked = sum(server.asked.values())
        assert cli("fetch-dataset", "roboflow:team/garments/3", "--out", "again", *sets).code == 0
        assert sum(server.asked.values()) == asked, "the second call has nothing to ask"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    assert KEY not in done.out + done.err


@pytest.mark.usefixtures("roboflow")
def test_doubtful_photos_go_to_roboflow_only_when_asked(cli: Cli, tmp_path: Path) -> None:
    make_yolo(tmp_path / "src", 6)
    assert cli("fetch-dataset", "yolo:src", "--out", "d").code == 0
    with RoboflowServer() as server:
        sets = ("--set", f"roboflow.api_url={server.url}", "--set", "roboflow.batch=doubtful")
        order = (
            "dataset",
            "export",
            "d",
            "--to",
            "roboflow",
            "--target",
            "team/garments",
            "--weights",
            TINY / "detector",
        )
        planned = cli(*order, "--limit", "2", "--dry-run", "--json", *sets)
        assert planned.code == 0, planned.err
        assert len(planned.document["photos"]) == 2
        assert planned.document["sent"] is None
        assert sum(server.asked.values()) == 0
        done = cli(*order, "--limit", "1", "--json", *sets)
        assert done.code == 0, done.err
        assert done.document["photos"] == planned.document["photos"][:1]
        assert done.document["sent"]["uploaded"] == 1
        assert len(server.uploads) == 1
        server.faults = {"upload": [(400, {"error": {"message": "too strange"}})]}
        last = cli(*order, "--limit", "2", *sets)
    assert last.code == 1
    photo, sent = last.out.splitlines()
    assert re.fullmatch(r"  \S+\.jpg  \d boxes  \S.*", photo)
    assert sent == "0 uploaded, 0 duplicate, 1 failed"
    assert [line for line in last.err.splitlines() if line.startswith(("next:", "error:", "hint:"))] == [
        "next: label the batch there, generate a version, then: fashionrec fetch-dataset roboflow:W/P/VERSION",
        "error: 1 photo rejected by Roboflow",
        "hint: run the command again: accepted photos are not sent twice",
    ]
    assert KEY not in done.out + done.err + last.out + last.err
