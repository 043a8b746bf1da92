"""A bundle's manifest by hand: each value up to its bounds, and the one line about what is beyond
them.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from fashionrec.errors import ModelError
from fashionrec.models.manifest import (
    check_manifest,
    check_spec,
    format_version,
    is_plain_name,
    read_manifest,
    shown,
)

NAN, INF = float("nan"), float("inf")
HASH = "0123456789abcdef" * 4
GONE = object()


def whole(least: int, most: int) -> tuple[list[Any], list[Any], str]:
    wrong = [least - 1, most + 1, float(least), True, str(least), None]
    return [least, most], wrong, f"not an integer from {least} to {most}"


def number(least: float, most: float, words: str) -> tuple[list[Any], list[Any], str]:
    return [least, most], [least - 1, most * 1.01, True, "1", NAN, INF, -INF, None], f"not a number from {words}"


def text(most: int = 200) -> tuple[list[Any], list[Any], str]:
    return ["", "x" * most], ["x" * (most + 1), 1, None], f"not a text of at most {most} characters"


def word(*choices: str) -> tuple[list[Any], list[Any], str]:
    return list(choices), ["x", "", f"{choices[0]}XX", 1, [choices[0]]], f"not one of {', '.join(choices)}"


def optional(rule: tuple[list[Any], list[Any], str]) -> tuple[list[Any], list[Any], str]:
    return [*rule[0], None], [value for value in rule[1] if value is not None], rule[2]


PRECISION = word("fp32", "fp16", "int8")
POSITIVE = [1e-9, 1, 1_000_000], [0, -1, 1e6 + 1, NAN, "1", True], "not a number from 1e-09 to 1e+06"
POOLING = word("none", "first", "last", "mean")
EDGE = [[1, 1024], [224, 224]], [[0, 1], [1, 1025], [1, 2.0]], "not an integer from 1 to 1024"
DETECTOR = [
    ("imgsz", whole(1, 4096)),
    ("resize", word("letterbox", "stretch")),
    ("pad", whole(0, 255)),
    ("scale", POSITIVE),
    ("mean", ([None, [-1e4, 0, 1e4]], [[1e4 + 1, 0, 0], [0, 0, "x"]], "not a number from -10000 to 10000")),
    ("mean", ([None, (1, 2, 3)], [[0, 0], [0, 0, 0, 0], 5, "abc", {}], "not a list of 3 to 3 values")),
    ("std", ([None, [1e-6, 1, 1e4]], [[0, 1, 1], [1, 1, 1e4 + 1]], "not a number from 1e-06 to 10000")),
    ("std", ([None], [[1, 1], [1, 1, 1, 1]], "not a list of 3 to 3 values")),
    *((key, text()) for key in ("channels", "head", "input")),
    ("batch", optional(whole(0, 1024))),
    ("rectangular", optional(whole(0, 4096))),
    ("precision", PRECISION),
    ("pixels", ([None, {}, {"resize": "fit", "later": 1}], [[], "x", 1], "not a mapping")),
    ("pixels.resize", word("none", "fit", "letterbox", "stretch")),
    ("pixels.imgsz", whole(1, 4096)),
    ("pixels.equalize", number(0, 10_000, "0 to 10000")),
    ("pixels.tiles", whole(1, 64)),
    ("anchors", ([{}], [None, [], 1], "not a mapping")),
    ("anchors.min_level", whole(1, 12)),
    ("anchors.max_level", whole(1, 12)),
    ("anchors.num_scales", whole(1, 16)),
    ("anchors.aspect_ratios", ([[1], [[1e-3, 1e3]] * 32], [[], [1] * 33, 1], "not a list of 1 to 32 values")),
    ("anchors.aspect_ratios", ([[[1]]], [[[]], [[1, 2, 3]]], "not a list of 1 to 2 values")),
    ("anchors.aspect_ratios", ([[1e3]], [[1e3 + 1], [0], [[0]], ["x"]], "not a number from 0.001 to 1000")),
    ("anchors.anchor_scale", ([4, 1e-3, [1e3] * 12], [[], [1] * 13], "not a list of 1 to 12 values")),
    ("anchors.anchor_scale", ([1e3], [1e3 + 1, 0, [0], None], "not a number from 0.001 to 1000")),
]
ENCODER = [
    ("dim", whole(1, 16384)),
    ("logit_scale", ([-1e6, 1e6], [-1e6 - 1, 1e6 + 1, NAN], "not a number from -1e+06 to 1e+06")),
    ("logit_bias", ([-1e6, 1e6], [-1e6 - 1, 1e6 + 1, None], "not a number from -1e+06 to 1e+06")),
    ("scores", word("softmax", "sigmoid")),
    ("precision", PRECISION),
    ("image", ([{}], [None, [], 1], "not a mapping")),
    ("image.input", text()),
    ("image.resize", word("crop", "squash")),
    ("image.pooling", POOLING),
    ("image.shortest_edge", whole(1, 1024)),
    ("image.resample", word("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")),
    ("image.crop", EDGE),
    ("image.crop", ([[2, 3]], [[2], [2, 3, 4], 2], "not a list of 2 to 2 values")),
    ("image.scale", POSITIVE),
    ("image.mean", ([[0, 0, 0]], [None, [0]], "not a list of 3 to 3 values")),
    ("image.std", ([[1e-6, 1, 1]], [[1e-7, 1, 1]], "not a number from 1e-06 to 10000")),
    ("text", ([{}], [None, "x"], "not a mapping")),
    ("text.tokenizer", text()),
    ("text.max_length", whole(1, 65536)),
    ("text.pad_id", whole(0, 2147483647)),
    ("text.pad_token", text(1000)),
    (
        "text.inputs",
        ([["input_ids"]], [["ids"], [1]], "not one of input_ids, attention_mask, token_type_ids"),
    ),
    (
        "text.inputs",
        ([["input_ids", "attention_mask", "token_type_ids"]], [[], ["input_ids"] * 4], "not a list of 1 to 3 values"),
    ),
    ("text.padding", word("longest", "max_length")),
    ("text.special_tokens", whole(0, 100)),
    ("text.pooling", POOLING),
]


@pytest.mark.parametrize(
    ("kind", "key", "right", "wrong", "told"),
    [(kind, key, *rule) for kind, rules in (("detector", DETECTOR), ("embedder", ENCODER)) for key, rule in rules],
)
def test_the_bounds_of_a_spec(kind: str, key: str, right: list[Any], wrong: list[Any], told: str) -> None:
    for value in right:
        spec: Any = value
        for part in reversed(key.split(".")):
            spec = {part: spec}
        check_spec(kind, spec)
    for value in wrong:
        spec = value
        for part in reversed(key.split(".")):
            spec = {part: spec}
        with pytest.raises(ValueError, match="spec") as caught:
            check_spec(kind, spec)
        message = str(caught.value)
        assert message.startswith(f"spec.{key} is ")
        assert message.endswith(f", {told}")


def test_names_of_classes() -> None:
    check_spec("detector", {"labels": {"0": "top", "999999": "x" * 200}})
    check_spec("detector", {"labels": {str(n): "" for n in range(10_000)}})
    for labels, told in (
        (
            {str(n): "" for n in range(10_001)},
            "spec.labels is a dict of 10001, not the names of at most 10,000 classes",
        ),
        (["top"], "spec.labels is a list of 1, not the names of at most 10,000 classes"),
        ({"x": "top"}, "spec.labels has 'x', which is not a class number"),
        ({"1000000": "top"}, "spec.labels has '1000000', which is not a class number"),
        ({"": "top"}, "spec.labels has '', which is not a class number"),
        ({0: "top"}, "spec.labels has 0, which is not a class number"),
        ({"0": None}, "spec.labels.0 is None, not a text of at most 200 characters"),
    ):
        with pytest.raises(ValueError, match="spec") as caught:
            check_spec("detector", {"labels": labels})
        assert str(caught.value) == told


def test_how_many_anchors_may_be_asked_for() -> None:
    def anchors(side: int, scales: int, ratios: int, first: int = 1, last: int = 1) -> dict[str, Any]:
        about = {"min_level": first, "max_level": last, "num_scales": scales, "aspect_ratios": [1] * ratios}
        return {"imgsz": side, "anchors": about}

    check_spec("detector", anchors(2000, 2, 1))  # 1,000 * 1,000 * 2: exactly two million
    check_spec("detector", anchors(1999, 2, 1))  # half a pixel over is another cell
    check_spec("detector", anchors(4096, 16, 32, 12, 12))
    check_spec("detector", {"imgsz": 4096, "anchors": {}})
    check_spec("detector", {"anchors": {"min_level": 1, "max_level": 12, "aspect_ratios": [1] * 32}})
    for spec in (
        anchors(2001, 2, 1),
        anchors(2000, 2, 2),
        anchors(2000, 3, 1),
        anchors(2000, 2, 1, 1, 2),
        {"imgsz": 4096, "anchors": {"max_level": 1, "aspect_ratios": [1]}},
    ):
        with pytest.raises(ValueError, match="anchors") as caught:
            check_spec("detector", spec)
        assert str(caught.value) == "spec.anchors has more than 2000000 anchors"
    check_spec("embedder", {"anchors": {"min_level": 99}})  # it has none


DOCUMENT: dict[str, Any] = {
    "format": "fashionrec-bundle",
    "format_version": 1,
    "kind": "embedder",
    "name": "tiny",
    "fingerprint": "f",
    "graphs": {"image": "image.onnx", "image.ready": "image.ready.onnx"},
    "spec": {"dim": 8, "text": {"tokenizer": "tokenizer.json"}},
    "source": {},
    "agreement": {"speed": {"ratio": 0, "ms": 1e9, "fp32_ms": 0.5}, "later": 1},
    "files": {
        name: {"size": 0, "sha256": HASH} for name in ("image.onnx", "image.ready.onnx", "tokenizer.json", "t.ready")
    },
}


def changed(*path: Any) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    *keys, last, value = path
    place = document
    for key in keys:
        place = place[key]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return document


FILE: dict[str, Any] = {"size": 0, "sha256": HASH}


@pytest.mark.parametrize(
    ("place", "told"),
    [
        *(((key, 5), f"{key} is 5") for key in ("kind", "name", "fingerprint", "graphs", "spec")),
        *(((key, GONE), f"{key} is None") for key in ("kind", "name", "source", "agreement", "files")),
        (("kind", "captioner"), "kind is 'captioner', not one of detector, embedder"),
        (("name", "x" * 501), f"name is {'x' * 80!r}, not a text of at most 500 characters"),
        (("agreement", "speed", []), "agreement.speed is a list of 0, not a mapping"),
        (("agreement", "speed", "ratio", -1), "agreement.speed.ratio is -1, not a number from 0 to 1e+09"),
        (("agreement", "speed", "ms", 1e9 + 1), "agreement.speed.ms is 1000000001.0, not a number from 0 to 1e+09"),
        (("agreement", "speed", "fp32_ms", "x"), "agreement.speed.fp32_ms is 'x', not a number from 0 to 1e+09"),
        (("files", {f"{n}": FILE for n in range(1001)}), "it lists 1,001 files"),
        (("files", "IMAGE.onnx", FILE), "it lists two files whose names differ only in case"),
        (("files", "a/b", FILE), "it names a file outside its folder: 'a/b'"),
        (("files", "Bundle.json", FILE), "it names a file outside its folder: 'Bundle.json'"),
        (("files", "x", []), "the size of x is None"),
        (("files", "x", {"size": -1, "sha256": HASH}), "the size of x is -1"),
        (("files", "x", {"size": True, "sha256": HASH}), "the size of x is True"),
        (("files", "x", {"size": 1.0, "sha256": HASH}), "the size of x is 1.0"),
        (("files", "x", {"size": 1}), "the sha256 of x is None"),
        (("files", "x", {"size": 1, "sha256": HASH[1:]}), f"the sha256 of x is {HASH[1:]!r}"),
        (("files", "x", {"size": 1, "sha256": HASH.upper()}), f"the sha256 of x is {HASH.upper()!r}"),
        (("graphs", "a/b", "image.onnx"), "'a/b' is not a role of a graph"),
        (("graphs", "text", "text.onnx"), "its graph 'text.onnx' is not listed"),
        (("graphs", "text", 5), "its graph 5 is not listed"),
        (("graphs", "text", "tokenizer.json"), "its graph tokenizer.json is not an ONNX file"),
        (("graphs", "text", "image.ready.onnx"), "its graph 'text' cannot be image.ready.onnx"),
        (("graphs", "image.ready", "image.onnx"), "its graph 'image.ready' cannot be image.onnx"),
        (("graphs", "text.ready", "image.ready.onnx"), "its graph 'text.ready' cannot be image.ready.onnx"),
        (("spec", "dim", 0), "spec.dim is 0, not an integer from 1 to 16384"),
        (("spec", "text", "tokenizer", "other.json"), "its tokenizer 'other.json' is not listed"),
        (("spec", "text", "tokenizer", "t.ready"), "its tokenizer 't.ready' is not listed"),
    ],
)
def test_what_no_export_writes(place: tuple[Any, ...], told: str) -> None:
    check_manifest(DOCUMENT)
    with pytest.raises(ValueError, match=r".") as caught:
        check_manifest(changed(*place))
    assert str(caught.value) == told


def test_what_an_export_may_write() -> None:
    for place in (
        ("name", "x" * 500),
        ("files", "x", {"size": 1 << 60, "sha256": HASH}),
        ("spec", {}),
        ("spec", "text", {}),
        ("agreement", {}),
    ):
        check_manifest(changed(*place))
    check_manifest({**DOCUMENT, "files": {**{f"{n}": FILE for n in range(996)}, **DOCUMENT["files"]}})
    # a detector has no tokenizer
    check_manifest({**DOCUMENT, "kind": "detector"})


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        *((name, True) for name in ("a", "a.b", "...", "x" * 200, "한글", "a b")),
        *((name, False) for name in ("", ".", "..", "a/b", "a\\b", "a:b", "x" * 201, "a\nb", "a\0", None, 5)),
    ],
)
def test_names_that_mean_a_file_in_their_folder_everywhere(name: Any, plain: bool) -> None:
    assert is_plain_name(name) is plain


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * 90, repr("x" * 80)),
        (None, "None"),
        (True, "True"),
        (2.5, "2.5"),
        (7, "7"),
        ((1 << 64) - 1, str((1 << 64) - 1)),
        (1 << 64, "a huge number"),
        (-(1 << 64), "a huge number"),
        ([1, 2], "a list of 2"),
        ({}, "a dict of 0"),
        (object(), "object"),
    ],
)
def test_a_value_in_a_message(value: Any, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("kind", "spec", "version"),
    [
        ("embedder", {}, 1),
        ("embedder", {"image": {"crop": [1, 1]}, "text": {"tokenizer": "t"}}, 1),
        ("embedder", {"scores": "softmax"}, 2),
        *(("embedder", {"image": {key: 1}}, 2) for key in ("resize", "pooling")),
        *(("embedder", {"text": {key: 1}}, 2) for key in ("inputs", "padding", "special_tokens", "pooling")),
        ("detector", {"scores": "softmax", "image": {"resize": 1}}, 1),
    ],
)
def test_the_oldest_format_that_says_all_of_a_spec(kind: str, spec: dict[str, Any], version: int) -> None:
    assert format_version(kind, spec) == version


@pytest.mark.parametrize(
    ("document", "message", "hint"),
    [
        (None, "{path} is not a bundle: bundle.json is missing", "create one with `fashionrec export`"),
        ([], "{path}/bundle.json is not the manifest of a bundle", "create one with `fashionrec export`"),
        (
            {**DOCUMENT, "format": "x"},
            "{path}/bundle.json is not the manifest of a bundle",
            "create one with `fashionrec export`",
        ),
        (
            {**DOCUMENT, "format_version": 3},
            "{path} is a bundle of format 3; this fashionrec reads 2",
            "export it again with this version",
        ),
        ({**DOCUMENT, "kind": 5}, "{path}/bundle.json is damaged: kind is 5", "export it again, or get another copy"),
        ("{", "{path}/bundle.json is damaged: ", "export it again, or get another copy"),
        ('{"a": NaN}', "{path}/bundle.json is damaged: ", "export it again, or get another copy"),
    ],
)
def test_what_is_no_bundle(tmp_path: Path, document: Any, message: str, hint: str) -> None:
    path = tmp_path / "b"
    with pytest.raises(ModelError) as caught:
        read_manifest(path)
    assert (str(caught.value), caught.value.hint) == (f"no such bundle: {path}", "create one with `fashionrec export`")
    path.mkdir()
    for version in (1, 2):
        (path / "bundle.json").write_text(json.dumps({**DOCUMENT, "format_version": version}))
        assert read_manifest(path) == {**DOCUMENT, "format_version": version}
    (path / "bundle.json").unlink()
    if document is not None:
        (path / "bundle.json").write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(ModelError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(message.format(path=path))
    assert message.endswith(": ") or str(caught.value) == message.format(path=path)
    assert caught.value.hint == hint
