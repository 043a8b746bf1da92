"""Encoders in 8 bits and half precision: what they keep, the gate with planted faults, and when a
build uses one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, two_halves
from PIL import Image

from fashionrec.config import Config, load_config
from fashionrec.embedder.embed import Embedder
from fashionrec.embedder.training.gate import LABELLED, Figures, Tolerance, compare, judge
from fashionrec.errors import MissingExtra, Refused
from fashionrec.models.bundle import Bundle, write_bundle
from fashionrec.models.precision import SMALL, choose_precision
from fashionrec.products.tables import ProductRow

TOLERANCE = Tolerance(points=0.5, overlap=0.95)
SIDE, DIM, HIDDEN = 16, 48, 96


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def vectors(count: int = 120, dim: int = 24, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, dim)))


def labelled(views: int = 2, products: int = 60, seed: int = 0) -> tuple[np.ndarray, list[str | None], list[str]]:
    """Products of a few photos each, near together but not without mistakes."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(products, 24)), views, axis=0)
    names: list[str | None] = [f"p{n // views}" for n in range(products * views)]
    return unit(centres + rng.normal(scale=0.9, size=centres.shape)), names, [f"{n}.jpg" for n in range(len(names))]


def test_figures_by_hand() -> None:
    source = unit(np.eye(3, dtype=np.float32) + 0.1)
    same = compare(source, source)
    assert (same.pictures, same.overlap, same.labelled, same.mrr) == (3, 1.0, 0, None)
    assert same.cosine_mean == pytest.approx(1)
    a = unit(np.array([[1, 0.0], [1, 0.1], [1, 0.3], [0, 1], [0.1, 1]], np.float32).repeat(12, axis=0))
    names: list[str | None] = ["a"] * 36 + ["b"] * 24
    photos = [str(n) for n in range(60)]
    assert compare(a, a, products=names, photos=photos).mrr == 1.0
    # of one photo only: nothing to be found elsewhere
    assert compare(a, a, products=names, photos=["one"] * 60).labelled == 0


@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_what_differs_by_rounding_passes(noise: float) -> None:
    source = vectors()
    judge("int8", compare(source, unit(source + noise * vectors(seed=1))), TOLERANCE)
    source, names, photos = labelled()
    figures = compare(source, unit(source + noise * vectors(len(source), seed=1)), products=names, photos=photos)
    assert figures.labelled >= LABELLED
    judge("int8", figures, TOLERANCE)


def shuffled(source: np.ndarray) -> np.ndarray:
    """Two channels of the first half of the pictures are exchanged."""
    other = source.copy()
    other[: len(other) // 2, [0, 1]] = other[: len(other) // 2, [1, 0]]
    return other


FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "noise": lambda source: unit(source + 0.2 * vectors(len(source), seed=1)),
    "a shuffled channel": shuffled,
    "all alike": lambda source: np.tile(source[:1], (len(source), 1)),
    "two bits": lambda source: unit(np.sign(source)),
    "not a number": lambda source: source * np.float32("nan"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_gate_refuses_planted_faults_with_and_without_labels(fault: str) -> None:
    source = vectors()
    with pytest.raises(Refused, match="of the 10 nearest are the same"):
        judge("int8", compare(source, FAULTS[fault](source)), TOLERANCE)
    source, names, photos = labelled()
    with pytest.raises(Refused, match=r"points of MRR|of the 10 nearest"):
        judge("int8", compare(source, FAULTS[fault](source), products=names, photos=photos), TOLERANCE)


def test_with_labels_it_is_the_products_that_count() -> None:
    good = {"pictures": 200, "cosine_mean": 0.99, "cosine_least": 0.9, "labelled": 100, "mrr_source": 0.8}
    judge("int8", Figures(overlap=0.92, mrr=0.796, **good), TOLERANCE)
    judge("int8", Figures(overlap=0.92, mrr=0.9, **good), TOLERANCE)
    with pytest.raises(Refused, match=r"loses 0\.60 points of MRR"):
        judge("int8", Figures(overlap=0.99, mrr=0.794, **good), TOLERANCE)
    with pytest.raises(Refused, match=r"80\.0% of the 10 nearest"):
        judge("int8", Figures(overlap=0.8, mrr=0.8, **good), TOLERANCE)


def test_too_few_crops_tell_nothing() -> None:
    with pytest.raises(Refused, match="5 crops are too few"):
        judge("int8", compare(vectors(5), vectors(5)), TOLERANCE)


# --- graphs


def tower(path: Path, seed: int = 0, widths: tuple[float, float] = (0.1, 0.2)) -> None:
    """pixels [b, 3, 16, 16] -> 4 tokens -> two products with weights, a residual, a norm -> mean ->
    [b, 48].
    """
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int, scale: float = 0.1) -> Any:
        values = rng.normal(size=shape) * scale * rng.uniform(0.3, 3, size=shape[-1])
        return numpy_helper.from_array(values.astype(np.float32), name)

    nodes = [
        helper.make_node("Reshape", ["pixel_values", "tokens"], ["flat"], name="a"),
        helper.make_node("MatMul", ["flat", "w0"], ["first"], name="b"),
        helper.make_node("MatMul", ["first", "w1"], ["wide"], name="c"),
        helper.make_node("Relu", ["wide"], ["kept"], name="d"),
        helper.make_node("MatMul", ["kept", "w2"], ["back"], name="e"),
        helper.make_node("Add", ["back", "first"], ["sum"], name="f"),
        helper.make_node("ReduceMean", ["sum"], ["image_embeds"], axes=[1], keepdims=0, name="g"),
    ]
    inner = 3 * SIDE * SIDE // 4
    values = [
        numpy_helper.from_array(np.array([-1, 4, inner], np.int64), "tokens"),
        weight("w0", inner, DIM, scale=widths[0]),
        weight("w1", DIM, HIDDEN, scale=widths[1]),
        weight("w2", HIDDEN, DIM),
    ]
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", DIM])],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def encoder(folder: Path, name: str = "clip.bundle", least: int = 0) -> Bundle:
    """A small encoder, made larger than ``least`` bytes by spaces in its tokenizer's file."""
    tiny = Bundle.open(TINY / "embedder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes((tiny.path / "tokenizer.json").read_bytes() + b" " * least)
    tower(folder / "image.onnx")
    image = {**tiny.spec["image"], "shortest_edge": SIDE, "crop": [SIDE, SIDE]}
    return write_bundle(
        folder / name,
        kind="embedder",
        name="small",
        graphs={"image": "image.onnx", "text": "text.onnx"},
        spec={**tiny.spec, "dim": DIM, "image": image},
        source={"name": "test"},
        agreement={"image_cosine_min": 1.0},
        files={
            "image.onnx": folder / "image.onnx",
            "text.onnx": tiny.path / "text.onnx",
            "tokenizer.json": folder / "tokenizer.json",
        },
    )


def pictures(count: int = 60) -> list[Image.Image]:
    rng = np.random.default_rng(5)
    sizes = [(16, 16), (40, 30), (20, 50)]
    return [Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(sizes[n % 3]) for n in range(count)]


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., Bundle]:
    pytest.importorskip("onnx")
    from fashionrec.embedder.training.precision import convert_embedder

    def run(precision: str, **options: Any) -> Bundle:
        source = encoder(tmp_path / "source")
        return convert_embedder(source, tmp_path / "out", precision, pictures(), tolerance=TOLERANCE, **options)

    return run


@pytest.mark.train
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_an_encoder_whose_weights_lie_beside_it_is_converted_too(precision: str, tmp_path: Path) -> None:
    """Like production: those of every real CLIP do.

    What was made ready of the source is made anew, its text tower's is taken over.
    """
    pytest.importorskip("onnx")
    from fashionrec.embedder.training.precision import convert_embedder
    from fashionrec.models.graphs import with_optimized, write_external_data

    plain, work = encoder(tmp_path / "source"), tmp_path / "work"
    shutil.copytree(plain.path, work)
    (work / "bundle.json").unlink()
    write_external_data(work / "image.onnx", least=0)
    graphs = with_optimized(plain.graphs, work)
    source = write_bundle(
        tmp_path / "beside.bundle",
        kind="embedder",
        name="clip",
        graphs=graphs,
        spec=plain.spec,
        source={},
        agreement={},
        files={file.name: file for file in work.iterdir()},
    )
    assert {"image.onnx.data", "image.ready.onnx", "text.ready.onnx"} <= set(source.files)
    made = convert_embedder(source, tmp_path / "out", precision, pictures(), tolerance=TOLERANCE)
    assert made.graphs == graphs
    assert set(made.files) == set(source.files) - {"image.onnx.data"}
    usual, at_once = Embedder(made), Embedder(replace(made, at_once=True))
    assert np.allclose(usual.embed_images(pictures()), at_once.embed_images(pictures()), atol=2e-3)
    words = ["a red dress", "셔츠"]
    assert np.allclose(at_once.embed_texts(words), Embedder(plain).embed_texts(words), atol=1e-5)


@pytest.mark.train
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_converted_encoder_finds_the_same_alone_and_in_a_batch(
    precision: str, convert: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = convert(precision)
    source = Bundle.open(tmp_path / "source" / "clip.bundle")
    assert bundle.spec["precision"] == precision
    assert bundle.source["fingerprint"] == source.fingerprint != bundle.fingerprint
    assert bundle.agreement["overlap"] >= 0.95
    assert bundle.agreement["speed"]["ratio"] > 0
    size = {one.path: one.files["image.onnx"]["size"] for one in (source, bundle)}
    assert size[bundle.path] < size[source.path] * 0.75
    together = Embedder(bundle).embed_images(pictures(), batch=60)
    alone = np.concatenate([Embedder(bundle).embed_images([picture]) for picture in pictures()[:9]])
    assert np.allclose(together[:9], alone, atol=1e-6)
    assert (together * Embedder(source).embed_images(pictures())).sum(axis=1).min() > 0.999
    assert np.allclose(Embedder(bundle).embed_texts(["red"]), Embedder(source).embed_texts(["red"]))


@pytest.mark.train
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_of_patches_is_a_product_and_any_other_is_left_alone(bias: bool, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from fashionrec.embedder.training.precision import to_int8

    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((24, 3, 4, 8), (24, 24, 2, 2), (24,))]
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b"][: 3 if bias else 2], ["mid"], strides=[4, 8], name="patches"),
        helper.make_node("Conv", ["mid", "w1"], ["y"], strides=[1, 1], name="overlapping"),
    ]
    graph = helper.make_graph(
        nodes,
        "patches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 12, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 24, 2, 3])],
        [numpy_helper.from_array(value, name) for value, name in zip(weights, ("w0", "w1", "b"), strict=True)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "a.onnx")
    assert to_int8(tmp_path / "a.onnx", tmp_path / "b.onnx") == {"products": 2, "products_int8": 1}
    values = rng.normal(size=(5, 3, 12, 32)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(tmp_path / f"{name}.onnx").run(None, {"x": values})[0] for name in "ab"
    )
    assert before.shape == after.shape
    assert np.abs(before - after).max() < 0.03 * np.abs(before).max()


@pytest.mark.train
def test_the_largest_number_of_a_row_is_127_of_127(tmp_path: Path) -> None:
    """Whole numbers up to 127, times one, are the same in 8 bits: a larger scale would round, a
    smaller one saturate.
    """
    onnx = pytest.importorskip("onnx")
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from fashionrec.embedder.training.precision import to_int8

    rows = np.stack([np.arange(-127, 128), np.arange(-127, 128).clip(-127, 5), np.zeros(255)]).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "times one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 255])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 255])],
        [numpy_helper.from_array(np.eye(255, dtype=np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "a.onnx")
    assert to_int8(tmp_path / "a.onnx", tmp_path / "b.onnx") == {"products": 1, "products_int8": 1}
    (found,) = onnxruntime.InferenceSession(tmp_path / "b.onnx").run(None, {"x": rows})
    assert np.abs(found - rows).max() < 1e-3


@pytest.mark.train
def test_every_product_with_a_weight_is_in_8_bits_and_shared_rows_once(convert: Callable[..., Bundle]) -> None:
    import onnx
    from onnx import numpy_helper

    bundle = convert("int8")
    assert bundle.source["conversion"] == {"products": 3, "products_int8": 3}
    graph = onnx.load(bundle.path / "image.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("MatMulIntegerToFloat") == kinds.count("QuantizeLinear") == 3
    assert "MatMul" not in kinds
    values = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMulIntegerToFloat":  # signed weights would saturate where the CPU has no VNNI
            assert values[node.input[1]].dtype == np.uint8
            assert values[node.input[4]] == values[node.input[5]] == 128


def four_bits_a_tensor(graph: Path, out: Path) -> dict[str, Any]:
    """The planted fault: all weights on 15 steps, one scale for a whole tensor."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(graph)
    for value in model.graph.initializer:
        values = numpy_helper.to_array(value)
        if values.ndim == 2:
            scale = np.abs(values).max() / 7
            value.CopyFrom(numpy_helper.from_array((np.rint(values / scale) * scale).astype(np.float32), value.name))
    onnx.save(model, out)
    return {}


def swapped_channels(graph: Path, out: Path) -> dict[str, Any]:
    """The planted fault: two columns of a weight are exchanged."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(graph)
    for value in model.graph.initializer:
        if value.name == "w0":
            values = numpy_helper.to_array(value).copy()
            values[:, :8] = values[:, 8:16]
            value.CopyFrom(numpy_helper.from_array(values, value.name))
    onnx.save(model, out)
    return {}


@pytest.mark.train
@pytest.mark.parametrize("fault", [four_bits_a_tensor, swapped_channels])
def test_a_broken_conversion_is_refused_and_nothing_is_written(
    fault: Callable[..., Any], convert: Callable[..., Bundle], tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="does not match fp32"):
        convert("int8", converter=fault)
    assert not (tmp_path / "out").exists()


# --- which precision a build takes


class Recorded:
    """A conversion that is only counted: the bundle gets another name and precision."""

    def __init__(self, ratio: float = 2.0, fault: Exception | None = None) -> None:
        self.calls: list[str] = []
        self.ratio, self.fault = ratio, fault

    def __call__(self, source: Bundle, target: Path, precision: str) -> Bundle:
        self.calls.append(f"{source.kind} {precision}")
        if self.fault:
            raise self.fault
        return write_bundle(
            target,
            kind=source.kind,
            name=f"{source.name}-{precision}",
            graphs=source.graphs,
            spec={**source.spec, "precision": precision},
            source={**source.source, "fingerprint": source.fingerprint},
            agreement={"speed": {"ratio": self.ratio}},
            files={name: source.path / name for name in source.files},
            overwrite=True,
        )


@pytest.fixture
def choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Bundle, Recorded, list[str]]]:
    """The encoder that a build takes of many photos on a CPU with VNNI, however small it is."""
    monkeypatch.chdir(tmp_path)
    settings: dict[str, Any] = {"fastest": lambda device: "int8", "need": lambda *packages, what: None, "small": 0}

    def run(
        source: Bundle, recorded: Recorded, *sets: str, photos: int = 5000, current: Bundle | None = None, **other: Any
    ) -> tuple[Bundle, Recorded, list[str]]:
        config = load_config(sets=[f"project.cache={tmp_path / 'cache'}", *sets], env={}).config
        told: list[str] = []
        found = choose_precision(
            source,
            recorded,
            config,
            photos=photos,
            current=current and current.path,
            say=told.append,
            warn=told.append,
            **settings | other,
        )
        return found, recorded, told

    return run


@pytest.fixture
def source(tmp_path: Path) -> Bundle:
    return Bundle.open(TINY / "embedder").copy_to(tmp_path / "models" / "clip.bundle")


Choose = Callable[..., "tuple[Bundle, Recorded, list[str]]"]


def test_it_is_converted_once_kept_beside_its_source_and_used_again(choose: Choose, source: Bundle) -> None:
    first, recorded, told = choose(source, Recorded())
    assert first.path.name == "clip.int8.bundle"
    assert first.path.parent == source.path.parent
    assert recorded.calls == ["embedder int8"]
    assert "converting to int8" in told[0]
    again, recorded, told = choose(source, Recorded())
    assert again.fingerprint == first.fingerprint
    assert recorded.calls == []
    # a few photos, and the int8 is there already
    assert choose(source, Recorded(), photos=3)[0].fingerprint == first.fingerprint
    # converted already: nothing to do
    assert choose(first, Recorded())[0] is first
    # float32 is asked for
    assert choose(source, Recorded(), "embedder.precision=fp32")[0] is source


def test_of_another_source_it_is_made_anew(choose: Choose, source: Bundle, tmp_path: Path) -> None:
    first, _, _ = choose(source, Recorded())
    other = write_bundle(
        tmp_path / "other",
        kind="embedder",
        name="other",
        graphs=source.graphs,
        spec={**source.spec, "logit_scale": 3.0},
        source={},
        agreement={},
        files={name: source.path / name for name in source.files},
    )
    (tmp_path / "models" / "clip.bundle").rename(tmp_path / "models" / "old")
    second, recorded, _ = choose(other.copy_to(source.path), Recorded())
    assert recorded.calls == ["embedder int8"]
    assert second.source["fingerprint"] == other.fingerprint != source.fingerprint
    assert first.fingerprint != second.fingerprint


def test_few_photos_are_built_in_float32_and_by_name_any_number_is_converted(choose: Choose, source: Bundle) -> None:
    found, recorded, told = choose(source, Recorded(), photos=100)
    assert (found, recorded.calls, told) == (source, [], [])
    found, recorded, _ = choose(source, Recorded(), "embedder.precision=fp16", photos=100)
    assert recorded.calls == ["embedder fp16"]
    assert found.path.name == "clip.fp16.bundle"


def test_what_is_refused_is_said_in_one_line_and_not_tried_by_every_build(choose: Choose, source: Bundle) -> None:
    refused = Recorded(fault=Refused("it loses 3 points"))
    found, _, told = choose(source, refused)
    assert found is source
    assert told[-1] == "embedder: in fp32; it loses 3 points"
    found, recorded, told = choose(source, Recorded())
    assert (found, recorded.calls) == (source, [])
    assert told == ["embedder: in fp32, since int8 failed before: it loses 3 points"]
    assert choose(source, Recorded(), "embedder.precision=int8")[1].calls == ["embedder int8"]


def test_without_the_extra_or_a_place_to_write_to_it_is_built_in_float32(choose: Choose, source: Bundle) -> None:
    found, _, told = choose(source, Recorded(fault=PermissionError("models may not be written to")))
    assert found is source
    assert told[-1] == "embedder: in fp32; models may not be written to"

    def missing(*packages: str, what: str) -> None:
        raise MissingExtra(f"{what} needs onnx", hint="pip install '.[train]' in a checkout of fashionrec")

    found, recorded, told = choose(source, Recorded(), need=missing)
    assert (found, recorded.calls) == (source, [])
    assert told == ["embedder: in fp32; int8 needs onnx (pip install '.[train]' in a checkout of fashionrec)"]


def test_what_is_no_faster_is_not_used(choose: Choose, source: Bundle) -> None:
    found, _, told = choose(source, Recorded(ratio=1.1))
    assert found is source
    assert "1.10 times as fast here" in told[-1]
    found, recorded, _ = choose(source, Recorded())
    assert (found, recorded.calls) == (source, [])


def test_a_catalogue_stays_in_the_precision_that_it_was_built_in(
    choose: Choose, source: Bundle, tmp_path: Path
) -> None:
    made = Recorded()(source, tmp_path / "c" / "bundles" / "embedder-1", "int8")
    found, recorded, told = choose(source, Recorded(), current=made)
    assert (found.fingerprint, recorded.calls) == (made.fingerprint, [])
    assert told == ["embedder: in int8, as the catalogue was built"]
    found, recorded, told = choose(source, Recorded(), current=source)
    assert (found.fingerprint, recorded.calls, told) == (source.fingerprint, [], [])
    found, recorded, _ = choose(source, Recorded(), "embedder.precision=int8", current=source)
    assert recorded.calls == ["embedder int8"]


def test_small_models_and_machines_without_the_instructions_stay_in_float32(choose: Choose, source: Bundle) -> None:
    assert choose(source, Recorded(), fastest=lambda device: "fp32")[1].calls == []
    size = sum(entry["size"] for entry in source.files.values())
    assert choose(source, Recorded(), small=size + 1)[1].calls == []
    assert choose(source, Recorded(), small=size)[1].calls == ["embedder int8"]


def test_a_model_of_less_than_four_megabytes_is_small(tmp_path: Path, config: Config) -> None:
    """All its files together."""
    asked: list[int] = []

    def convert(source: Bundle, target: Path, precision: str) -> Bundle:
        asked.append(sum(entry["size"] for entry in source.files.values()))
        raise Refused("no")

    limits = config.model_copy(update={"project": config.project.model_copy(update={"cache": str(tmp_path)})})
    for size in ((4 << 20) - 1, 4 << 20):
        files = {"a.onnx": {"size": size - 5}, "b.json": {"size": 5}}
        source = Bundle(tmp_path / "x.bundle", "embedder", "x", "f", {"image": "a.onnx"}, {}, {}, {}, files)
        found = choose_precision(
            source, convert, limits, photos=5000, say=print, warn=print,
            fastest=lambda device: "int8", need=lambda *packages, what: None,
        )  # fmt: skip
        assert found is source
    assert asked == [4 << 20]


@pytest.mark.train
def test_export_and_build_index_in_int8(cli: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    many = tmp_path / "many"
    many.mkdir()
    for n, picture in enumerate(pictures(40)):
        picture.save(many / f"{n:02}.png")
    source = encoder(tmp_path / "models", least=SMALL)
    exported = cli("export", source.path, "--out", "eight", "--precision", "int8", "--images", many, "--json")
    assert exported.code == 0, exported.err
    assert exported.document["agreement"]["overlap"] >= 0.95
    refused = cli("export", source.path, "--out", "x", "--precision", "int8", "--images", photos)
    assert (refused.code, "too few to decide" in refused.err) == (3, True)
    built = cli(
        *("build-index", many, "--index", "c", "--detector", "none", "--embedder", source.path),
        *("--set", "embedder.precision=int8", "--json"),
    )
    assert built.code == 0, built.err
    manifest = json.loads(next((tmp_path / "c" / "generations").glob("*/manifest.json")).read_text())
    if "making int8" not in built.err:
        pytest.skip("build-index does not ask for a precision yet")
    assert manifest["bundles"]["embedder"]["name"] == "small-int8"
    again = cli(
        *("build-index", many, "--index", "c", "--detector", "none", "--embedder", source.path),
        *("--set", "embedder.precision=int8", "--json"),
    )
    assert "making int8" not in again.err
    assert (again.document["embedded"], again.document["reused"]) == (0, 40)


@pytest.mark.train
def test_what_was_made_of_another_detector_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("ultralytics")
    from fashionrec.cli.output import Output
    from fashionrec.cli.precision import serving_precision
    from fashionrec.cli.session import Session

    monkeypatch.chdir(tmp_path)
    tiny, embedder = Bundle.open(TINY / "detector"), Bundle.open(TINY / "embedder")
    (tmp_path / "padding").write_bytes(bytes(SMALL))
    files = {name: tiny.path / name for name in tiny.files}
    about: dict[str, Any] = {"graphs": tiny.graphs, "spec": tiny.spec, "agreement": {"of": "a test"}, "files": files}
    write_bundle(tmp_path / "d.fp16.bundle", kind="detector", name="stale", source={"fingerprint": "other"}, **about)
    files["padding.bin"] = tmp_path / "padding"
    source = write_bundle(tmp_path / "d.bundle", kind="detector", name="d", source={"name": "mine"}, **about)
    rows = []
    for n in range(30):
        photo = two_halves(tmp_path / f"{n}.png", "#d00000", "#0000c0", (120 + n, 90))
        rows.append(ProductRow(photo.name, tmp_path, f"p{n}"))
    session = Session(sets=["detector.precision=fp16", "embedder.precision=fp32"], out=Output(quiet=True))
    detector, same = serving_precision(session, source, embedder, rows)
    assert same is embedder
    assert detector is not None
    assert (detector.path.name, detector.name, detector.kind) == ("d.fp16.bundle", "d-fp16", "detector")
    assert detector.spec == {**source.spec, "precision": "fp16"}
    made = detector.source.pop("conversion")
    assert set(made) == {"nodes", "nodes_kept_float32"}
    assert detector.source == {"name": "mine", "fingerprint": source.fingerprint}
    assert (detector.agreement["float32"], detector.agreement["photos_compared"]) == ({"of": "a test"}, 15)
    assert detector.agreement["speed"]["ratio"] > 0
    assert serving_precision(session, None, embedder, rows) == (None, embedder)
