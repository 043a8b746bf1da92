"""Bundles of others: manifests, ready graphs, tokenizers, engines.

A clear line or a right answer, and nothing from outside.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Result
from PIL import Image
from systems import posix_only

from fashionrec.common.files import fingerprint, sha256_file
from fashionrec.detector.detect import Detector
from fashionrec.embedder.embed import Embedder
from fashionrec.errors import ModelError
from fashionrec.models.bundle import Bundle

PICTURE = Image.new("RGB", (40, 30), "red")


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    shutil.copytree(TINY / "embedder", tmp_path / "embedder")
    return tmp_path / "embedder"


def manifest_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "bundle.json").read_text())
    return document


def forge(folder: Path, manifest: Any, *, rehash: bool = True) -> None:
    """Write a manifest with the fingerprint, sizes and hashes that fit it, as far as it has any."""
    if rehash:
        try:
            for name, entry in manifest["files"].items():
                if (folder / name).is_file():
                    entry |= {"size": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
        except (TypeError, KeyError, AttributeError, OSError, ValueError):
            pass
    try:
        digests = {name: entry["sha256"] for name, entry in manifest["files"].items() if ".ready" not in name}
        graphs = {role: name for role, name in manifest["graphs"].items() if not role.endswith(".ready")}
        own = {"kind": manifest["kind"], "graphs": graphs, "spec": manifest["spec"], "files": digests}
        manifest["fingerprint"] = fingerprint(own)
    except (TypeError, KeyError, AttributeError, ValueError):
        pass
    (folder / "bundle.json").write_text(json.dumps(manifest))


def refused(folder: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        Embedder.open(folder).embed_images([PICTURE])
    assert "\n" not in str(caught.value)


# manifests


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("spec.dim", 10**9, "spec.dim"),
        ("spec.dim", 48.0, "spec.dim"),
        ("spec.dim", True, "spec.dim"),
        ("spec.image.shortest_edge", 10**9, "shortest_edge"),
        ("spec.image.crop", [32, 10**9], "crop"),
        ("spec.image.crop", 32, "crop"),
        ("spec.image.std", [0.5, 0.5, 0], "std"),
        ("spec.image.mean", [0.5, "0.5", 0.5], "mean"),
        ("spec.image.scale", "1/255", "scale"),
        ("spec.image", [], "spec.image"),
        ("spec.text.max_length", 10**12, "max_length"),
        ("spec.text.pad_id", -1, "pad_id"),
        ("spec.text.tokenizer", "../../secret", "tokenizer"),
        ("spec.text.tokenizer", "bundle.json", "tokenizer"),
        ("spec.precision", "int9000", "precision"),
        ("kind", "../x", "kind"),
        ("name", {"a": 1}, "name"),
        ("graphs.image", "unlisted.onnx", "graph"),
        ("graphs.image", ["image.onnx"], "graph"),
        ("graphs.image", "tokenizer.json", "not an ONNX file"),
        ("graphs.image", "image.ready.onnx", "cannot be image.ready.onnx"),
        ("graphs.a/b", "image.onnx", "role"),
        ("files.image.onnx", [1], "size"),
        ("files.image.onnx", {"size": 1.5, "sha256": "0" * 64}, "size"),
        ("files.image.onnx", {"size": 5, "sha256": "../x"}, "sha256"),
        ("files.Image.onnx", {"size": 5, "sha256": "0" * 64}, "case"),
        ("files.a\nb", {"size": 5, "sha256": "0" * 64}, "outside its folder"),
        ("files.c:x", {"size": 5, "sha256": "0" * 64}, "outside its folder"),
        ("files.BUNDLE.json", {"size": 5, "sha256": "0" * 64}, "outside its folder"),
        ("files", {str(n): {"size": 0, "sha256": "0" * 64} for n in range(5000)}, "5,000 files"),
        ("agreement", [], "agreement"),
        ("agreement.speed", "fast", "agreement.speed"),
        ("agreement.speed", {"ratio": "fast"}, "agreement.speed.ratio"),
        ("format_version", {"a": 1}, "a bundle of format a dict of 1; this"),
        ("format_version", [1, 2, 3], "a bundle of format a list of 3; this"),
        ("format_version", "x" * 99, f"format '{'x' * 80}'; this"),
        ("format_version", 1 << 64, "format a huge number; this"),
        ("format_version", 1 - (1 << 64), f"format {1 - (1 << 64)}; this"),
        ("format_version", None, "format None; this"),
        ("source", {"x": float("inf")}, "damaged"),
    ],
)
def test_a_manifest_with_an_odd_value_is_one_line(encoder: Path, key: str, value: Any, match: str) -> None:
    document = manifest_of(encoder)
    first, _, rest = key.partition(".")
    at: Any = document
    parts = [first, rest] if first in ("graphs", "files") and rest else key.split(".")
    for part in parts[:-1]:
        at = at[part]
    at[parts[-1]] = value
    forge(encoder, document, rehash=False)
    refused(encoder, match)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format": "fashionrec-bundle", "format_version": 1, "x": ' + "9" * 100_000 + "}",
        '"' + "x" * (20 << 20) + '"',
        "\ufeff{}",
        "null",
        "",
    ],
    ids=["lists", "mappings", "number", "long", "bom", "null", "empty"],
)
def test_a_manifest_that_is_no_document_of_ours_is_one_line(encoder: Path, text: str) -> None:
    (encoder / "bundle.json").write_text(text)
    refused(encoder, "bundle.json")


def test_a_detector_of_monstrous_size_is_refused(tmp_path: Path) -> None:
    for key, value in (
        ("imgsz", 10**9),
        ("imgsz", "64"),
        ("labels", {"x": "top"}),
        ("labels", {str(n): "top" for n in range(20_000)}),
        ("pixels", {"resize": "fit", "imgsz": 10**9}),
        ("pixels", {"resize": "none", "equalize": 2.0, "tiles": 10**6}),
        ("batch", -1),
        ("mean", [0.5]),
        ("anchors", {"min_level": 1, "max_level": 12, "num_scales": 16, "aspect_ratios": [1] * 30, "anchor_scale": 4}),
        ("anchors", {"min_level": 1, "max_level": 10**9, "num_scales": 1, "aspect_ratios": [1], "anchor_scale": 4}),
    ):
        folder = tmp_path / "detector"
        shutil.copytree(TINY / "detector", folder)
        document = manifest_of(folder)
        document["spec"] |= {"imgsz": 4096} if key == "anchors" else {}
        document["spec"][key] = value
        forge(folder, document)
        with pytest.raises(ModelError, match=f"spec.{key}"):
            Bundle.open(folder)
        shutil.rmtree(folder)


ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**40, float("nan"), "", "../../secret.bin", "/etc/passwd", "\x1b]52;c;\x07", "\ud800",
    [], {}, [[]], {"a": {}}, "x" * 100_000, [1] * 10_000, {"": None}, "image.ready.onnx", "unlisted.bin",
)  # fmt: skip


def test_three_hundred_forged_manifests(tmp_path: Path) -> None:
    """Values, types and names, with fingerprints that fit: a ModelError, or the very vectors that
    the honest bundle gives.
    """
    honest = Embedder.open(TINY / "embedder").embed_images([PICTURE])
    texts = Embedder.open(TINY / "embedder").embed_texts(["red"])
    rng = random.Random(0)
    (tmp_path / "secret.bin").write_bytes(os.urandom(64))
    answered, lines = 0, []
    start = time.monotonic()
    for n in range(300):
        folder = tmp_path / f"b{n}"
        shutil.copytree(TINY / "embedder", folder)
        (folder / "unlisted.bin").write_bytes(b"secret")
        document = manifest_of(folder)
        for _ in range(rng.choice((1, 1, 2))):
            mutate(document, rng)
        forge(folder, document, rehash=rng.random() < 0.7)
        try:
            encoder = Embedder(replace(Bundle.open(folder, "embedder"), at_once=rng.random() < 0.5))
            vectors = encoder.embed_images([PICTURE])
            words = encoder.embed_texts(["red"])
        except ModelError as error:
            lines.append(str(error))
            continue
        answered += 1
        if encoder.bundle.spec == Bundle.open(TINY / "embedder").spec:
            assert np.allclose(vectors, honest, atol=1e-5)
            assert np.allclose(words, texts, atol=1e-5)
    assert 20 < answered < 280
    assert not any("\n" in line for line in lines)
    assert time.monotonic() - start < 120


def test_forged_manifests_of_a_detector(tmp_path: Path) -> None:
    photo = Image.open(TINY / "photos" / "red-blue.jpg").convert("RGB")
    honest = Detector(Bundle.open(TINY / "detector"), conf=0.2, iou=0.6, max_garments=5).detect([photo])
    rng, answered = random.Random(1), 0
    for n in range(150):
        folder = tmp_path / f"b{n}"
        shutil.copytree(TINY / "detector", folder)
        document = manifest_of(folder)
        mutate(document, rng)
        forge(folder, document)
        try:
            detector = Detector(Bundle.open(folder, "detector"), conf=0.2, iou=0.6, max_garments=5)
            found = detector.detect([photo])
        except ModelError:
            continue
        answered += 1
        if detector.bundle.spec == Bundle.open(TINY / "detector").spec:
            assert found == honest
    assert 10 < answered < 140


def mutate(document: dict[str, Any], rng: random.Random) -> None:
    """Replace, remove, add or rename one value anywhere."""
    places = [(document, key) for key in document]
    for inner, _ in places:
        value = inner[_]
        if isinstance(value, dict) and value:
            places += [(value, key) for key in value]
    inner, key = rng.choice(places[rng.choice((0, 9)) :])
    action = rng.random()
    if action < 0.7:
        inner[key] = rng.choice(ODD)
    elif action < 0.8:
        del inner[key]
    elif action < 0.9:
        inner[rng.choice(("../x", "x.ready.onnx", "", "ready", key + ".ready", "a" * 300))] = inner[key]
    else:
        inner[key] = rng.choice(places)[0].get(key, 7)


@posix_only("links", "named pipes")
def test_links_and_pipes_in_a_bundle_are_refused(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(b"secret")
    for name in ("extra.bin", "tokenizer.json", "image.onnx", "bundle.json"):
        kept = (encoder / name).read_bytes() if (encoder / name).exists() else None
        (encoder / name).unlink(missing_ok=True)
        for make in (lambda path: path.symlink_to(tmp_path / "secret.bin"), os.mkfifo):
            make(encoder / name)
            refused(encoder, "link|neither a file nor a folder")
            (encoder / name).unlink()
        if kept is not None:
            (encoder / name).write_bytes(kept)
    (tmp_path / "way").symlink_to(encoder)
    assert Embedder.open(tmp_path / "way").embed_images([PICTURE]).shape == (1, 48)  # reached through one is fine


def test_what_the_manifest_does_not_list_is_neither_opened_nor_copied(encoder: Path, tmp_path: Path) -> None:
    (encoder / "notes.txt").write_text("mine")
    (encoder / ".tensorrt").mkdir()
    copy = Bundle.open(encoder).copy_to(tmp_path / "copy")
    assert {path.name for path in copy.path.iterdir()} == {*copy.files, "bundle.json"}


# tokenizers


GROW = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 9}


def replacing(pattern: str, content: str = "b") -> dict[str, Any]:
    return {"normalizer": {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}}


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},  # a panic of its Rust code
        replacing("a", "a" * 5000),
        {"normalizer": {"type": "Sequence", "normalizers": [GROW] * 9}},
        replacing("(((("),
        replacing("(r+)+$"),  # fails on a text only
        {"added_tokens": [{"id": -1}]},
        {"model": None},
    ],
    ids=["panic", "long", "growing", "pattern", "backtracking", "id", "nothing"],
)
def test_a_tokenizer_that_cannot_be_used_is_one_line(encoder: Path, change: dict[str, Any]) -> None:
    path = encoder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    forge(encoder, manifest_of(encoder))
    start = time.monotonic()
    with pytest.raises(ModelError, match="tokenizer") as caught:
        Embedder.open(encoder).embed_texts(["r" * 200 + "!"])
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("depth", [20, 10_000])
def test_a_deep_tokenizer_is_no_crash(encoder: Path, depth: int) -> None:
    path = encoder / "tokenizer.json"
    before = json.dumps({**json.loads(path.read_text()), "normalizer": "@"})
    deep = '{"type":"Sequence","normalizers":[' * depth + '{"type":"Lowercase"}' + "]}" * depth
    path.write_text(before.replace('"@"', deep))
    forge(encoder, manifest_of(encoder))
    if depth == 20:
        assert Embedder.open(encoder).embed_texts(["red"]).shape == (1, 48)
    else:
        with pytest.raises(ModelError, match="tokenizer"):
            Embedder.open(encoder).embed_texts(["red"])


# what is written, and pictures


def test_a_folder_that_is_more_than_a_bundle_is_not_replaced(encoder: Path, tmp_path: Path) -> None:
    from fashionrec.models.bundle import write_bundle

    old = Bundle.open(encoder)
    given = {name: TINY / "embedder" / name for name in old.files}
    shared: dict[str, Any] = {"source": {}, "agreement": {}, "files": given, "overwrite": True}
    again = {"kind": old.kind, "name": "new", "graphs": old.graphs, "spec": old.spec, **shared}
    assert write_bundle(encoder, **again).name == "new"
    (encoder / "thesis.docx").write_text("mine")
    with pytest.raises(ModelError, match=r"thesis\.docx"):
        write_bundle(encoder, **again)
    assert (encoder / "thesis.docx").read_text() == "mine"
    (encoder / "thesis.docx").unlink()
    (tmp_path / "way").symlink_to(encoder)
    assert write_bundle(tmp_path / "way", **again).name == "new"
    assert (tmp_path / "way").is_symlink()


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (2, 30_000)])
def test_a_very_long_picture_takes_no_more_memory_than_others(size: tuple[int, int]) -> None:
    """Resized whole, one of 1 x 60,000 pixels would take 12 GB."""
    from fashionrec.embedder.embed import Embedder
    from fashionrec.embedder.preprocess import encoder_view

    spec = Embedder.open(TINY / "embedder").spec.image._replace(shortest_edge=224, crop=(224, 224))
    start = time.monotonic()
    (picture,) = encoder_view([Image.new("RGB", size, "teal")], spec)
    assert picture.size == (224, 224)
    assert picture.getpixel((100, 100)) == (0, 128, 128)
    assert time.monotonic() - start < 10


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_vectors_of_others_are_never_unpickled(catalogue: Path, cli: Callable[..., Result], tmp_path: Path) -> None:
    done = cli("catalogue", "export", tmp_path / "out", "--index", catalogue)
    assert done.code == 0, done.err
    assert cli("catalogue", "import", tmp_path / "out", "--index", tmp_path / "honest").code == 0
    np.save(tmp_path / "out" / "image_vectors.npy", np.array([Canary(tmp_path / "ran")], object), allow_pickle=True)
    done = cli("catalogue", "import", tmp_path / "out", "--index", tmp_path / "copy")
    assert (done.code, (tmp_path / "ran").exists()) == (2, False)
    assert "Traceback" not in done.err


@pytest.mark.parametrize("name", ["x.engine", "x.onnx", "x.torchscript", "x.bin"])
def test_models_in_forms_that_are_code_are_opened_by_no_command(
    name: str, cli: Callable[..., Result], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"\x02\0\0\0{}" + os.urandom(64))
    for command in (
        ("export", name, "--out", "out"),
        ("build-index", photos, "--index", "c", "--detector", name, "--embedder", TINY / "embedder"),
        ("build-index", photos, "--index", "c", "--detector", "none", "--embedder", name),
        ("evaluate", "--weights", name, "--data", photos),
    ):
        done = cli(*command)
        assert done.code == 2, (command, done.err)
        assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "c").exists()


def test_a_folder_with_the_name_of_the_shipped_encoder_is_not_taken_for_it(
    cli: Callable[..., Result], photos: Path, tmp_path: Path
) -> None:
    name = "patrickjohncyh/fashion-clip"
    shutil.copytree(TINY / "embedder", tmp_path / name)
    done = cli("build-index", photos, "--index", "c", "--detector", "none")
    assert done.code == 2
    assert f"--set embedder.source=./{name}" in done.err
    given = cli("build-index", photos, "--index", "c", "--detector", "none", "--set", f"embedder.source=./{name}")
    assert given.code == 0, given.err


def test_a_bundle_of_a_detector_still_serves(tmp_path: Path) -> None:
    copy = Bundle.open(TINY / "detector").copy_to(tmp_path / "detector")
    detector = Detector(copy, conf=0.2, iou=0.6, max_garments=5)
    (found,) = detector.detect([Image.open(TINY / "photos" / "red-blue.jpg").convert("RGB")])
    assert [garment.class_name for garment in found] == ["top", "pants"]
