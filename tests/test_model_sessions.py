"""Test how graphs are opened, which answers count as the same, and which precision a build takes:
case by case.
"""

# ruff: noqa: F811 (fixtures of another file)
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import TINY
from test_precision import Recorded, choose, source  # noqa: F401  (fixtures)

from fashionrec.errors import DataError, FashionrecError, ModelError, Refused
from fashionrec.models.bundle import Bundle
from fashionrec.models.graphs import outputs_match
from fashionrec.models.precision import fastest_precision

# --- sessions


class Options:
    """The options of a session, written down."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.graph_optimization_level = "as it comes"

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Sessions that were asked for: the file's name, the options then, and what else was said."""
    found: list[tuple[str, dict[str, Any], dict[str, Any]]] = []

    class Session:
        def __init__(self, file: str, options: Options, **named: Any) -> None:
            found.append((Path(file).name, {**vars(options), "entries": dict(options.entries)}, named))
            self.providers = named["providers"]

        def get_providers(self) -> list[str]:
            return list(self.providers)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return found


SPIN, PACK = "session.intra_op.allow_spinning", "session.disable_prepacking"
CPU = ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("kind", "precision", "at_once", "threads", "entries"),
    [
        ("detector", None, False, 0, {SPIN: "1"}),
        ("detector", None, False, 1, {SPIN: "0"}),
        ("detector", "int8", False, 2, {SPIN: "1"}),
        ("detector", None, True, 2, {SPIN: "0", PACK: "1"}),
        ("detector", "fp32", True, 0, {SPIN: "0", PACK: "1"}),
        ("detector", "int8", True, 0, {SPIN: "0"}),
        ("embedder", "int8", True, 0, {SPIN: "0", PACK: "1"}),
        ("embedder", None, False, 1, {SPIN: "0"}),
    ],
)
def test_what_a_session_is_opened_with(
    kind: str, precision: str | None, at_once: bool, threads: int, entries: dict[str, str], opened: list[Any]
) -> None:
    bundle = Bundle.open(TINY / kind)
    spec = bundle.spec | ({"precision": precision} if precision else {})
    graphs = {role: name for role, name in bundle.graphs.items() if not role.endswith(".ready")}
    graph, name = next(iter(graphs.items()))
    replace(bundle, spec=spec, graphs=graphs, at_once=at_once).session(graph, threads=threads, device="cpu")
    values = {"log_severity_level": 3, "intra_op_num_threads": threads, "inter_op_num_threads": 1}
    values |= {"entries": entries, "graph_optimization_level": "as it comes"}
    assert opened == [(name, values, {"providers": CPU, "enable_fallback": 0})]


def test_what_is_ready_is_opened_as_it_is_on_a_cpu_for_a_few_questions(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Bundle.open(TINY / "detector")
    bundle = replace(plain, graphs={"detect": "detect.onnx", "detect.ready": "detect.onnx"})
    for at_once, level in ((False, "as it comes"), (True, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)):
        opened.clear()
        replace(bundle, at_once=at_once).session("detect", device="cpu")
        ((_, values, named),) = opened
        assert values["graph_optimization_level"] == level
        assert named == {"providers": CPU, "enable_fallback": 0}
    opened.clear()
    replace(plain, graphs={"detect": "detect.onnx"}, at_once=True).session("detect", device="cpu")
    assert opened[0][1]["graph_optimization_level"] == "as it comes"
    opened.clear()
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    replace(bundle, at_once=True).session("detect", device="cuda")
    ((_, values, named),) = opened
    assert values["graph_optimization_level"] == "as it comes"
    assert named == {"providers": both, "enable_fallback": 1}


def test_a_graph_that_is_not_there_is_named(opened: list[Any]) -> None:
    bundle = Bundle.open(TINY / "detector")
    with pytest.raises(ModelError) as caught:
        bundle.session("text")
    assert str(caught.value) == f"{bundle.path} has no graph 'text', only {', '.join(bundle.graphs)}"
    bundle.open_ahead("detect", threads=1)
    bundle.open_ahead("detect", threads=1)  # asked for already
    bundle.open_ahead("detect", threads=2)
    assert bundle.session("detect", threads=1) is not bundle.session("detect", threads=2)
    assert [values["intra_op_num_threads"] for _, values, _ in opened] in ([1, 2], [2, 1])
    bundle.session("detect", threads=1)
    assert len(opened) == 3


# --- answers that are the same


def product(path: Path, factor: float, shape: list[Any], kind: str = "FLOAT") -> Path:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    number = getattr(TensorProto, kind)
    value = np.array(factor, helper.tensor_dtype_to_np_dtype(number))
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "f"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", number, shape)],
        [helper.make_tensor_value_info("y", number, shape)],
        [numpy_helper.from_array(value, "f")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("factor", "other", "near", "same"),
    [
        (1.0, 1.0, 1e-3, True),
        (1000.0, 1000.9, 1e-3, True),  # by its share where it is large
        (1000.0, 1002.0, 1e-3, False),
        (0.0, 0.0009, 1e-3, True),  # and as it is where it is small
        (0.0, 0.0011, 1e-3, False),
        (1.0, 1.015, 2e-2, True),
        (float("nan"), float("nan"), 1e-3, False),
        (float("inf"), float("inf"), 1e-3, False),
    ],
)
def test_answers_that_are_near(factor: float, other: float, near: float, same: bool, tmp_path: Path) -> None:
    one = product(tmp_path / "a.onnx", factor, ["n", 3, 64, 64])
    assert outputs_match(one, product(tmp_path / "b.onnx", other, ["n", 3, 64, 64]), near) is same


@pytest.mark.parametrize(
    ("shape", "kind", "known"),
    [
        (["n", 3, "h", "w"], "FLOAT", True),
        (["n", 8], "FLOAT16", True),
        (["n", "length"], "INT64", True),
        ([2, "length"], "INT64", True),
        (["n", (1 << 26) + 1], "INT64", False),  # more than is made up for the purpose
        (["n", 8], "INT32", False),
        (["n", 8], "DOUBLE", False),
    ],
)
def test_inputs_that_can_be_made_up(shape: list[Any], kind: str, known: bool, tmp_path: Path) -> None:
    one = product(tmp_path / "a.onnx", 2, shape, kind)
    assert outputs_match(one, one, 1e-3) is known
    if known:
        assert outputs_match(one, product(tmp_path / "b.onnx", 3, shape, kind), 1e-3) is False
    assert outputs_match(one, tmp_path / "none.onnx", 1e-3) is False


def test_what_is_made_up_has_the_sizes_that_are_fixed_and_small_ones_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[np.ndarray] = []
    real = onnxruntime.InferenceSession

    class Session(real):  # type: ignore[misc, valid-type]
        def run(self, names: Any, values: dict[str, np.ndarray]) -> Any:
            given.append(values["x"])
            return super().run(names, values)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    for shape, kind, expected in (
        (["n", 3, "h", 5], "FLOAT", (1, 3, 64, 5)),
        ([2, "length"], "INT64", (2, 8)),
        (["n", 1, "h"], "FLOAT16", (1, 1, 64)),
    ):
        path = product(tmp_path / "a.onnx", 2, shape, kind)
        assert outputs_match(path, path, 1e-3)
        one, other = given[-2:]
        assert one.shape == expected
        assert np.array_equal(one, other)
        assert one.min() >= 0
        assert (one == 1).all() if kind == "INT64" else 0.5 < one.max() <= 1


# --- precisions


@pytest.mark.parametrize(
    ("device", "providers", "flags", "expected"),
    [
        ("auto", ["CUDAExecutionProvider", "CPUExecutionProvider"], "flags : sse avx512_vnni", "fp16"),
        ("cpu", ["CUDAExecutionProvider", "CPUExecutionProvider"], "flags : sse avx512_vnni", "int8"),
        ("auto", ["CPUExecutionProvider"], "flags : avx_vnni", "int8"),
        ("auto", ["CPUExecutionProvider"], "Features : fp asimddp", "int8"),
        ("auto", ["CPUExecutionProvider"], "flags : avx2 avx512_vnnix", "fp32"),
        ("cpu", ["CPUExecutionProvider"], None, "fp32"),
    ],
)
def test_the_fastest_precision_of_a_machine(
    device: str, providers: list[str], flags: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path, **_: Any) -> str:
        assert str(path) == "/proc/cpuinfo"
        if flags is None:
            raise FileNotFoundError
        return flags

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(Path, "read_text", read)
    assert fastest_precision(device) == expected


Choose = Callable[..., "tuple[Bundle, Recorded, list[str]]"]


def test_every_word_of_a_choice(choose: Choose, source: Bundle, tmp_path: Path) -> None:
    target = source.path.parent / "clip.int8.bundle"
    made, _, told = choose(source, Recorded())
    assert told == [f"embedder: converting to int8: {target}"]
    assert choose(source, Recorded())[2] == [f"embedder: in int8, {target}"]
    assert choose(made, Recorded(), "embedder.precision=fp16")[0] is made  # no float32 to make it of
    _, recorded, told = choose(source, Recorded(ratio=1.25), "embedder.precision=fp16", "build.min_speedup=1.5")
    assert recorded.calls == ["embedder fp16"]  # by name it is taken though it does not pay
    assert told == [f"embedder: converting to fp16: {source.path.parent / 'clip.fp16.bundle'}"]


def test_from_how_many_photos_and_from_which_speed_on_it_pays(choose: Choose, source: Bundle) -> None:
    sets = ("build.convert_from=200", "build.min_speedup=1.5")
    assert choose(source, Recorded(), *sets, photos=199)[1].calls == []
    found, recorded, told = choose(source, Recorded(ratio=1.49), *sets, photos=200)
    assert (found, recorded.calls) == (source, ["embedder int8"])
    assert told[1:] == ["embedder: in fp32; int8 is only 1.49 times as fast here"]
    assert choose(source, Recorded(), *sets, photos=200)[0] is source  # what was made then does not pay either
    assert choose(source, Recorded(), *sets, "embedder.precision=int8")[0].name == "clip-int8".replace(
        "clip", source.name
    )
    faster = (*sets[:1], "build.min_speedup=1.49")
    assert choose(source, Recorded(), *faster, photos=200)[0] is not source


def test_what_is_damaged_or_of_another_source_is_made_anew(choose: Choose, source: Bundle) -> None:
    made, _, _ = choose(source, Recorded())
    graph = made.path / next(iter(made.files))
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    assert choose(source, Recorded())[1].calls == ["embedder int8"]
    made = Bundle.open(made.path)
    other = replace(source, fingerprint="0" * 64)
    assert choose(other, Recorded())[1].calls == ["embedder int8"]
    # the catalogue's own counts where it was made of this source
    made, _, _ = choose(source, Recorded())
    assert choose(replace(source, fingerprint="1" * 64), Recorded(), photos=1, current=made)[0].fingerprint == "1" * 64
    found, _, told = choose(source, Recorded(), photos=1, current=made)
    assert (found, told) == (made, ["embedder: in int8, as the catalogue was built"])


def test_beside_its_source_or_in_the_project_where_that_is_a_catalogues(
    choose: Choose,
    source: Bundle,
    tmp_path: Path,
) -> None:
    inside = source.copy_to(tmp_path / "c" / "bundles" / "embedder")
    assert choose(inside, Recorded(), f"project.data={tmp_path / 'data'}")[0].path == (
        tmp_path / "c" / "bundles" / "embedder.int8.bundle"
    )
    (tmp_path / "c" / "catalogue.json").write_text("{}")
    assert choose(inside, Recorded(), f"project.data={tmp_path / 'data'}")[0].path == (
        tmp_path / "data" / "bundles" / "embedder.int8.bundle"
    )


@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        (Refused("it loses"), True),
        (DataError("it loses"), True),
        (FashionrecError("it loses"), False),
        (OSError("it loses"), False),
    ],
)
def test_only_what_was_judged_is_not_tried_again(
    fault: Exception,
    kept: bool,
    choose: Choose,
    source: Bundle,
    tmp_path: Path,
) -> None:
    assert choose(source, Recorded(fault=fault))[2][1:] == ["embedder: in fp32; it loses"]
    record = tmp_path / "cache" / "precision.json"
    assert record.exists() is kept
    again, recorded, told = choose(source, Recorded())
    assert recorded.calls == ([] if kept else ["embedder int8"])
    assert (again is source) is kept
    if kept:
        assert told == ["embedder: in fp32, since int8 failed before: it loses"]
        assert list(json.loads(record.read_text()).values()) == ["it loses"]
        assert choose(replace(source, fingerprint="0" * 64), Recorded())[1].calls == ["embedder int8"]
        for n, content in enumerate(("[]", "{", '"x"')):
            record.write_text(content)
            (source.path.parent / "clip.int8.bundle").rename(tmp_path / f"made{n}")
            assert choose(source, Recorded())[1].calls == ["embedder int8"]
