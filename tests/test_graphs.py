"""Weights beside their graph: the same answers, fewer bytes read."""

import subprocess
import sys
import threading
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import TINY
from PIL import Image

from fashionrec.embedder.embed import Embedder
from fashionrec.errors import ModelError
from fashionrec.models.bundle import Bundle, write_bundle
from fashionrec.models.graphs import graph_files, optimized, with_optimized, write_external_data, write_optimized

onnx = pytest.importorskip("onnx")


def graph(path: Path, weights: np.ndarray) -> Path:
    from onnx import TensorProto, helper, numpy_helper

    rows, columns = weights.shape
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", columns])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.ones(3, np.float32), "small")],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def answer(path: Path, values: np.ndarray) -> np.ndarray:
    bundle = Bundle(path.parent, "detector", "x", "", {"detect": path.name}, {}, {}, {}, {}, at_once=True)
    return np.asarray(bundle.session("detect", threads=1).run(None, {"x": values})[0])


def test_weights_lie_beside_and_nothing_else_changes(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
    path = graph(tmp_path / "g.onnx", weights)
    values = np.random.default_rng(1).normal(size=(5, 300)).astype(np.float32)
    before, size = answer(path, values), path.stat().st_size
    write_external_data(path)
    assert path.stat().st_size == size  # too small to be worth it
    assert list(graph_files(path)) == ["g.onnx"]
    write_external_data(path, least=1000)
    assert path.stat().st_size < 2000
    assert (tmp_path / "g.onnx.data").read_bytes() == weights.tobytes()
    assert np.array_equal(answer(path, values), before)
    assert [tensor.data_location for tensor in onnx.load(path, load_external_data=False).graph.initializer] == [1, 0]


def test_a_bundle_holds_both_files_and_misses_either(tmp_path: Path) -> None:
    path = graph(tmp_path / "detect.onnx", np.ones((64, 64), np.float32))
    write_external_data(path, least=1000)
    bundle = write_bundle(
        tmp_path / "b",
        kind="detector",
        name="b",
        graphs={"detect": "detect.onnx"},
        spec={},
        source={},
        agreement={},
        files=graph_files(path),
    )
    assert set(bundle.files) == {"detect.onnx", "detect.onnx.data"}
    copy = bundle.copy_to(tmp_path / "copy")
    assert copy.fingerprint == bundle.fingerprint
    values = np.ones((1, 64), np.float32)
    assert np.allclose(copy.session("detect").run(None, {"x": values})[0], 64)
    data = tmp_path / "copy" / "detect.onnx.data"
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    with pytest.raises(ModelError, match="damaged"):
        Bundle.open(tmp_path / "copy")
    data.write_bytes(whole[:-1] + b"\1")
    with pytest.raises(ModelError, match="has changed"):
        Bundle.open(tmp_path / "copy", verify=True)
    data.unlink()
    with pytest.raises(ModelError, match="missing"):
        Bundle.open(tmp_path / "copy")


def test_a_bundle_that_starts_at_once_answers_the_same() -> None:
    bundle = Bundle.open(TINY / "embedder")
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "teal", "white")]
    usual, at_once = Embedder(bundle), Embedder(replace(bundle, at_once=True))
    assert np.allclose(usual.embed_images(pictures), at_once.embed_images(pictures), atol=1e-6)


def network(folder: Path) -> Path:
    """A graph that ONNX Runtime rewrites: x * sigmoid(x) after a product, in float32, its weights
    beside it.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(64, 64)).astype(np.float32) / 8 for _ in range(3)]
    nodes, last = [], "x"
    for n in range(3):
        nodes += [
            helper.make_node("MatMul", [last, f"w{n}"], [f"a{n}"]),
            helper.make_node("Sigmoid", [f"a{n}"], [f"b{n}"]),
            helper.make_node("Mul", [f"a{n}", f"b{n}"], [f"c{n}"]),
        ]
        last = f"c{n}"
    made = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(array, f"w{n}") for n, array in enumerate(weights)],
    )
    path = folder / "detect.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    write_external_data(path, least=1000)
    return path


def in_a_bundle(path: Path, out: Path, graphs: dict[str, str]) -> Bundle:
    made = {"kind": "detector", "name": "b", "spec": {}, "source": {}, "agreement": {}}
    return write_bundle(out, graphs=graphs, files=graph_files(path), **made)


def test_what_is_ready_answers_the_same_with_the_same_weights(tmp_path: Path) -> None:
    path = network(tmp_path)
    plain = in_a_bundle(path, tmp_path / "plain", {"detect": path.name})
    graphs = with_optimized({"detect": path.name}, tmp_path)
    assert graphs == {"detect": "detect.onnx", "detect.ready": "detect.ready.onnx"}
    bundle = in_a_bundle(path, tmp_path / "b", graphs)
    assert set(bundle.files) == {"detect.onnx", "detect.onnx.data", "detect.ready.onnx"}
    assert bundle.files["detect.ready.onnx"]["size"] < 4000, "the weights are in it once more"
    assert bundle.fingerprint == plain.fingerprint, "it is the same model"
    rewritten = onnx.load(tmp_path / "b" / "detect.ready.onnx", load_external_data=False).graph.node
    assert "Sigmoid" not in {node.op_type for node in rewritten}, "nothing was rewritten"
    values = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    usual, at_once = (
        one.session("detect").run(None, {"x": values})[0] for one in (bundle, replace(bundle, at_once=True))
    )
    assert np.allclose(usual, at_once, atol=1e-6)


def test_many_weights_lie_beside_what_is_ready_where_its_graph_has_its_own(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32)
    path = graph(tmp_path / "g.onnx", weights)
    ready = write_optimized(path)
    assert ready == tmp_path / "g.ready.onnx"
    assert list(graph_files(path)) == ["g.onnx", "g.ready.onnx", "g.ready.onnx.data"]
    assert (tmp_path / "g.ready.onnx.data").stat().st_size == weights.nbytes
    assert ready.stat().st_size < 2000
    values = np.random.default_rng(1).normal(size=(2, 1024)).astype(np.float32)
    assert np.allclose(answer(ready, values), answer(path, values), atol=1e-4)
    (tmp_path / "b").mkdir()
    small = graph(tmp_path / "b" / "g.onnx", weights[:1023])
    write_optimized(small)
    assert list(graph_files(small)) == ["g.onnx", "g.ready.onnx"]


def test_a_ready_graph_that_cannot_be_read_is_not_needed(tmp_path: Path) -> None:
    path = network(tmp_path)
    bundle = replace(in_a_bundle(path, tmp_path / "b", with_optimized({"detect": path.name}, tmp_path)), at_once=True)
    values = {"x": np.ones((1, 64), np.float32)}
    expected = bundle.session("detect").run(None, values)[0]
    ready = tmp_path / "b" / "detect.ready.onnx"
    ready.write_bytes(b"\xff" * ready.stat().st_size)
    assert np.allclose(bundle.session("detect").run(None, values)[0], expected, atol=1e-6)
    with pytest.raises(ModelError, match=r"detect\.ready\.onnx has changed"):
        Bundle.open(bundle.path, verify=True)


def test_what_answers_otherwise_is_not_made_ready(tmp_path: Path) -> None:
    path = network(tmp_path)

    def wrong(graph: Path, level: str) -> Any:
        model = optimized(graph, level)
        large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= 4096]
        one, other = next((a, b) for a, b in combinations(large, 2) if a.dims == b.dims)
        one.raw_data, other.raw_data = other.raw_data, one.raw_data
        return model

    assert write_optimized(path, wrong) is None
    assert set(graph_files(path)) == {"detect.onnx", "detect.onnx.data"}
    (tmp_path / "odd.onnx").write_bytes(b"no graph")
    assert with_optimized({"detect": "odd.onnx"}, tmp_path) == {"detect": "odd.onnx"}


def test_a_process_may_end_while_models_are_being_opened() -> None:
    """With daemon threads the system aborts it every few times."""
    code = f"from fashionrec.models.bundle import Bundle; b = Bundle.open({str(TINY / 'embedder')!r})\n"
    code += "for n in range(1, 10): b.open_ahead('image', threads=n)"
    for _ in range(4):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_what_is_opened_ahead_by_its_name_alone_is_what_is_asked_for_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    here: list[bool] = []
    real = onnxruntime.InferenceSession

    def noted(*given: Any, **named: Any) -> Any:
        here.append(threading.current_thread() is threading.main_thread())
        return real(*given, **named)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    bundle = Bundle.open(TINY / "embedder")
    bundle.open_ahead("image")
    bundle.session("image")
    assert here == [False]


def test_what_was_opened_ahead_is_taken_once_and_its_error_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(TINY / "embedder")
    opened: list[Any] = []
    ahead: list[bool] = []
    real = onnxruntime.InferenceSession

    def counted(*given: Any, **named: Any) -> Any:
        ahead.append(threading.current_thread() is not threading.main_thread())
        opened.append(real(*given, **named))
        return opened[-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", counted)
    bundle.open_ahead("image", threads=1)
    assert bundle.session("image", threads=1) is opened[0]
    assert ahead == [True]
    bundle.open_ahead("image", threads=1)
    assert bundle.session("image", threads=1) is opened[-1] is not opened[0]
    assert ahead == [True, False], "opened ahead twice"
    broken = Bundle.open(TINY / "embedder").copy_to(tmp_path / "broken")
    (broken.path / "image.onnx").write_bytes(b"\xff" * broken.files["image.onnx"]["size"])
    broken.open_ahead("image")
    with pytest.raises(ModelError, match="cannot be loaded"):
        broken.session("image")
