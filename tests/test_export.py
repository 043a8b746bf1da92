"""Exports of a detector that was trained here: what the gate lets through, and every planted fault
that it must refuse.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import TINY, Result, keeps_its_contract
from PIL import Image
from tampered import Ask, Change, Inputs, tampered
from test_detector_training import FAST, dataset

from fashionrec.config import load_config
from fashionrec.detector.detect import Detector
from fashionrec.errors import DataError, Refused
from fashionrec.models.bundle import Bundle, is_bundle

pytestmark = pytest.mark.train
pytest.importorskip("ultralytics")

LEARN = ("nbs=8", "optimizer=AdamW", "lr0=0.005", "lrf=0.02", "warmup_epochs=1", "scale=0.1", "erasing=0", "val=false")
COLOUR = ("hsv_h=0", "hsv_s=0.1", "hsv_v=0.1")  # the class is the colour
SIZES = ((80, 64), (64, 80), (100, 50), (33, 77), (160, 160))


class Trained(NamedTuple):
    weights: Path
    data: Path
    graph: Any


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A detector that finds what it was trained on, its data, and its float32 graph."""
    from fashionrec.detector.training.families.ultra import to_graph
    from fashionrec.detector.training.train import train_detector

    folder = tmp_path_factory.mktemp("export")
    data = dataset(folder / "data", {"train": 96, "valid": 4, "test": 40})
    model = Path(__file__).parent / "data" / "yolov8-onelevel.yaml"
    words = [f"train.{word}" for word in (*FAST, *LEARN, *COLOUR, "epochs=10", "seed=0")]
    config = load_config(sets=[f"train.data={data}", f"train.model={model}", *words], env={}).config
    weights = train_detector(config.train, folder / "runs").weights_path("best")
    (folder / "graph").mkdir()
    return Trained(weights, data, to_graph(weights, folder / "graph"))


@pytest.fixture(scope="module")
def whole(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Its bundle in float32, checked on pictures made for the purpose."""
    from fashionrec.detector.training.export import export_detector

    return export_detector(trained.weights, tmp_path_factory.mktemp("whole") / "bundle")


def unwritten(path: Path, spec: Mapping[str, Any]) -> Bundle:
    return Bundle(path.parent, "detector", "unwritten", "", {"detect": path.name}, dict(spec), {}, {}, {})


def photos_of(data: Path, split: str) -> list[Image.Image]:
    """The split's pictures, in sizes as different as photos are."""
    files = sorted((data.parent / split / "images").iterdir())
    return [Image.open(file).convert("RGB").resize(SIZES[n % len(SIZES)]) for n, file in enumerate(files)]


def inputs_of(trained: Trained, split: str = "train") -> list[np.ndarray]:
    from fashionrec.detector.training.gate import open_for_test

    detector = open_for_test(unwritten(trained.graph.path, trained.graph.spec))
    files = sorted((trained.data.parent / split / "images").iterdir())
    return [detector.inputs([Image.open(file).convert("RGB")]) for file in files]


def evidence(trained: Trained, **changes: Any) -> Any:
    from fashionrec.detector.training.export import Evidence

    folders = {name: trained.data.parent / name / "images" for name in ("train", "test")}
    photos = {name: sorted(folder.iterdir()) for name, folder in folders.items()}
    limits = load_config(env={}).config.images
    return Evidence(**{"photos": photos["test"], "calibration": photos["train"], "limits": limits, **changes})


def measuring(trained: Trained) -> Callable[[Any], Mapping[str, Any]]:
    from fashionrec.evaluation.detection.evaluator import evaluate_detector

    config = load_config(env={}).config
    return lambda detector: evaluate_detector(detector, trained.data, "test", config.evaluate, config.images).to_dict()


def test_an_export_agrees_with_its_source_and_serves(trained: Trained, whole: Bundle) -> None:
    bundle = whole
    assert bundle.agreement["score_difference_max"] <= 1e-3
    assert bundle.agreement["anchors_compared"] > 0
    assert bundle.agreement["detections"] == bundle.agreement["detections_alone"]
    assert list(bundle.spec["labels"].values()) == ["dress", "pants", "skirt&pants", "skirt", "top"]
    assert str(trained.weights.parent) not in json.dumps(bundle.source)
    detector = Detector(bundle, conf=0.05, iou=0.6, max_garments=12)
    photos = photos_of(trained.data, "test")[:6]
    together = detector.predict(photos)
    assert sum(map(len, together)) > 0
    for photo, found in zip(photos, together, strict=True):
        (alone,) = detector.predict([photo])
        assert np.allclose(alone.boxes, found.boxes, atol=1e-2)
        assert np.allclose(alone.scores, found.scores, atol=1e-5)


@pytest.mark.parametrize("fault", ["scale", "pad", "channels", "batch", "letterbox", "head"])
def test_the_gate_refuses_every_planted_fault(fault: str, trained: Trained) -> None:
    from fashionrec.detector.training import gate

    bundle = unwritten(trained.graph.path, trained.graph.spec)
    photos = photos_of(trained.data, "test")[:8]
    gate.check(trained.graph.reference, bundle, photos)
    if fault == "scale":
        bundle.spec["scale"] = 1 / 128
    elif fault == "pad":
        bundle.spec["pad"] = 0
    elif fault == "head":
        bundle.spec["labels"] = {"0": "dress", "1": "pants"}
    elif fault == "letterbox":
        bundle.spec["resize"] = "stretch"
    else:
        bundle = tampered(bundle, faulty(fault))
    with pytest.raises(Refused):
        gate.check(trained.graph.reference, bundle, photos)


def faulty(fault: str) -> Change:
    def answers(graph: str, inputs: Inputs, ask: Ask) -> list[np.ndarray]:
        if fault == "channels":
            return ask({name: np.ascontiguousarray(values[:, ::-1]) for name, values in inputs.items()})
        outputs = ask(inputs)[0]
        if fault == "batch":
            outputs[1:] = 0
        if fault == "shift":  # boxes a little to the right: still the same garments, no longer where they are
            outputs[:, 0] += 0.7
        return [outputs]

    return answers


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_smaller_export_is_accepted_measured_and_served(
    precision: str, trained: Trained, whole: Bundle, tmp_path: Path
) -> None:
    import onnx

    from fashionrec.detector.training.export import export_detector

    proof = evidence(trained, measure=measuring(trained), tolerance=1.0)
    bundle = export_detector(trained.weights, tmp_path / precision, precision=precision, evidence=proof)
    assert bundle.spec == {**whole.spec, "precision": precision}
    assert bundle.fingerprint != whole.fingerprint
    assert bundle.files["detect.onnx"]["size"] < whole.files["detect.onnx"]["size"] * 0.7
    figures = bundle.agreement
    assert figures["map50_95_source"] > 0.5
    assert figures["points_lost"] == pytest.approx((figures["map50_95_source"] - figures["map50_95"]) * 100)
    assert figures["points_lost"] <= 1.0
    assert figures["found_by_both"] > 0.95
    assert figures["detections_exported"] == figures["detections_exported_alone"] > 10
    assert figures["float32"]["score_difference_max"] <= 1e-3
    assert figures["speed"]["ratio"] > 0
    graph = onnx.load(bundle.path / "detect.onnx").graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    source, served = (Detector(one, conf=0.4, iou=0.6, max_garments=9) for one in (whole, bundle))
    photos = photos_of(trained.data, "valid")
    for ours, theirs in zip(served.predict(photos), source.predict(photos), strict=True):
        assert sorted(ours.class_ids) == sorted(theirs.class_ids)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_graph_whose_weights_lie_beside_it_is_converted_too(precision: str, trained: Trained, tmp_path: Path) -> None:
    """Like production: those of large detectors do; the conversion is written elsewhere."""
    import shutil

    from fashionrec.detector.training.precision import largest_activation, to_fp16, to_int8
    from fashionrec.models.graphs import graph_files, write_external_data

    (tmp_path / "made").mkdir()
    graph, out = tmp_path / "detect.onnx", tmp_path / "made" / "detect.onnx"
    shutil.copy(trained.graph.path, graph)
    write_external_data(graph, least=0)
    assert len(graph_files(graph)) == 2
    if precision == "int8":
        to_int8(graph, out, lambda: inputs_of(trained)[:4])
    else:
        to_fp16(graph, out)
        assert largest_activation(graph, lambda: inputs_of(trained)[:1]) > 0
    assert len(list(tmp_path.glob("*.onnx*"))) == 2  # nothing is left beside the source
    assert [file.name for file in out.parent.iterdir() if "whole" in file.name] == []
    assert compared(trained, out, precision)["found_by_both"] > 0.95


def test_int8_leaves_the_decoding_alone_whatever_its_nodes_are_called(trained: Trained, tmp_path: Path) -> None:
    import onnx

    from fashionrec.detector.training.precision import to_int8

    model = onnx.load(trained.graph.path)
    for n, node in enumerate(model.graph.node):
        node.name = f"node{n}"
    onnx.save(model, tmp_path / "renamed.onnx")
    made = to_int8(tmp_path / "renamed.onnx", tmp_path / "int8.onnx", lambda: inputs_of(trained)[:4])
    assert made["calibrated_on"] == 4
    # in float are DFL's convolution and the head's last two, which feed nothing but the decoding
    graph = onnx.load(tmp_path / "int8.onnx").graph
    makers = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    quantized = [node for node in convolutions if node.input[1] in makers]  # weights that are dequantized first
    assert made["convolutions"] == len(convolutions)
    assert made["convolutions_int8"] == len(quantized) == len(convolutions) - 3
    after_softmax = [node for node in graph.node if node.op_type == "Softmax"]
    assert after_softmax
    assert all(makers[node.input[0]].op_type != "DequantizeLinear" for node in after_softmax)


def compared(trained: Trained, file: Path, precision: str, change: Change | None = None) -> dict[str, Any]:
    """The figures of a graph beside the float32 one, and the gate's word on them."""
    from fashionrec.detector.training.agreement import compare
    from fashionrec.detector.training.gate import judge, open_for_test

    bundle = unwritten(file, trained.graph.spec)
    if change is not None:
        bundle = tampered(bundle, change)
    exported = Detector(bundle, conf=0.25, iou=0.6, max_garments=100, device="cpu")
    source = open_for_test(unwritten(trained.graph.path, trained.graph.spec))
    figures = compare(source, exported, photos_of(trained.data, "test"))
    judge(precision, figures, None, 0.0)
    return figures


def test_the_gate_lets_sound_int8_pass(trained: Trained, tmp_path: Path) -> None:
    from fashionrec.detector.training.precision import to_int8

    to_int8(trained.graph.path, tmp_path / "good.onnx", lambda: inputs_of(trained))
    assert compared(trained, tmp_path / "good.onnx", "int8")["found_by_both"] > 0.95


@pytest.mark.parametrize("fault", ["black", "dim", "wide"])
def test_the_gate_refuses_int8_of_a_wrong_calibration(fault: str, trained: Trained, tmp_path: Path) -> None:
    """Ranges taken from black pictures, from dim ones, and far too wide."""
    from fashionrec.detector.training.precision import to_int8

    factor = np.float32({"black": 0.0, "dim": 0.2, "wide": 30.0}[fault])
    to_int8(trained.graph.path, tmp_path / "bad.onnx", lambda: [values * factor for values in inputs_of(trained)])
    with pytest.raises(Refused, match="int8 export does not match its source"):
        compared(trained, tmp_path / "bad.onnx", "int8")


def test_the_gate_refuses_int8_of_the_whole_graph(trained: Trained, tmp_path: Path) -> None:
    """Check what onnxruntime's quantizer does when nobody tells it what to leave alone: the head
    goes too, and with it the scores.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(inputs_of(trained))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"images": values} for values in self.batches), None)

    quantize_static(
        str(trained.graph.path),
        str(tmp_path / "all.onnx"),
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
    )
    with pytest.raises(Refused, match="int8 export does not match its source"):
        compared(trained, tmp_path / "all.onnx", "int8")


@pytest.mark.parametrize("fault", ["channels", "batch"])
def test_the_gate_refuses_a_fault_that_only_the_smaller_export_has(fault: str, trained: Trained) -> None:
    with pytest.raises(Refused, match="batches find" if fault == "batch" else "found by both"):
        compared(trained, trained.graph.path, "int8", faulty(fault))


def test_the_gate_refuses_a_loss_of_map_though_the_same_garments_are_found(trained: Trained) -> None:
    from fashionrec.detector.training.agreement import compare
    from fashionrec.detector.training.gate import judge, map_loss, open_for_test

    bundle = unwritten(trained.graph.path, trained.graph.spec)
    source = open_for_test(bundle)
    shifted = Detector(tampered(bundle, faulty("shift")), conf=0.25, iou=0.6, max_garments=100, device="cpu")
    figures = compare(source, shifted, photos_of(trained.data, "test"))
    judge("int8", figures, None, 1.0)
    loss = map_loss(source, shifted, measuring(trained))
    assert loss["map50"] > loss["map50_source"] - 0.02
    assert loss["points_lost"] > 1.0
    with pytest.raises(Refused, match=r"source: it loses [\d.]+ points of mAP50-95 \([^;]*; tolerance 1\)$"):
        judge("int8", figures, loss, 1.0)
    judge("int8", figures, loss, 100.0)


def test_map_is_measured_on_the_checkpoint_for_fp32_and_a_loss_refused(trained: Trained, tmp_path: Path) -> None:
    from fashionrec.detector.training.export import export_detector
    from fashionrec.detector.training.gate import SourceDetector

    asked: list[type] = []
    real = measuring(trained)

    def honest(detector: Any) -> Mapping[str, Any]:
        asked.append(type(detector))
        return real(detector)

    figures = export_detector(
        trained.weights, tmp_path / "a", evidence=evidence(trained, measure=honest, tolerance=0.1)
    ).agreement
    assert asked == [SourceDetector, Detector]
    assert abs(figures["points_lost"]) < 0.1
    assert figures["map50_95"] > 0.5

    def losing(detector: Any) -> Mapping[str, Any]:
        return {"map50_95": 0.5 if type(detector) is SourceDetector else 0.49, "map50": 0.6, "images": 40}

    with pytest.raises(Refused, match=r"loses 1\.00 points"):
        export_detector(trained.weights, tmp_path / "b", evidence=evidence(trained, measure=losing, tolerance=0.1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_half_precision_is_refused_where_activations_overflow_though_a_cpu_does_not_show_it(
    trained: Trained, tmp_path: Path
) -> None:
    """Check what the first layer says is multiplied by 100,000 and divided again: the same network,
    and no longer one for fp16.
    """
    import onnx
    from onnx import numpy_helper

    from fashionrec.detector.training.gate import judge
    from fashionrec.detector.training.precision import largest_activation, to_fp16

    model = onnx.load(trained.graph.path)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    boost = onnx.helper.make_node("Mul", [first.output[0], "much"], ["boosted"], name="boost")
    calm = onnx.helper.make_node("Div", ["boosted", "much"], ["calm"], name="calm")
    for node in model.graph.node:
        for n, name in enumerate(node.input):
            if name == first.output[0]:
                node.input[n] = "calm"
    place = list(model.graph.node).index(first) + 1
    for node in (calm, boost):
        model.graph.node.insert(place, node)
    model.graph.initializer.append(numpy_helper.from_array(np.array(1e5, np.float32), "much"))
    onnx.save(model, tmp_path / "strong.onnx")
    batches = inputs_of(trained)[:4]
    sound = largest_activation(trained.graph.path, lambda: batches)
    assert 1 < sound < 1000
    largest = largest_activation(tmp_path / "strong.onnx", lambda: batches)
    assert largest > 65504
    to_fp16(tmp_path / "strong.onnx", tmp_path / "half.onnx")
    judge("fp16", compared(trained, tmp_path / "strong.onnx", "fp16"), None, 0.3, sound)
    with pytest.raises(Refused, match="half precision ends at 65504"):
        judge("fp16", None, None, 0.3, largest)


def test_too_few_detections_are_no_proof() -> None:
    from fashionrec.detector.training.gate import judge

    agreed = {"found_by_both": 1.0, "iou_mean": 1.0, "score_difference_mean": 0.0, "photos_compared": 50}
    counts = {"detections_exported": 9, "detections_exported_alone": 9}
    judge("int8", {**agreed, "detections_source": 10, **counts}, None, 1.0)
    with pytest.raises(Refused, match="too few to decide"):
        judge("int8", {**agreed, "detections_source": 9, **counts}, None, 1.0)


def test_without_photos_of_the_user_there_is_no_int8(
    trained: Trained, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    from fashionrec.detector.training.export import export_detector

    for precision in ("fp16", "int8"):
        with pytest.raises(DataError, match="on your photos"):
            export_detector(trained.weights, tmp_path / "x", precision=precision)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    with pytest.raises(DataError, match="none of the photos"):
        export_detector(trained.weights, tmp_path / "x", precision="int8", evidence=evidence(trained, photos=[broken]))
    done = cli("export", trained.weights, "--out", "x", "--precision", "int8")
    assert (done.code, "--images" in done.err) == (2, True)
    assert not (tmp_path / "x").exists()


def test_the_command_exports_measures_and_what_it_made_is_served(
    trained: Trained, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    done = cli("export", trained.weights, "--out", "int8", "--precision", "int8", "--data", trained.data, "--json")
    assert done.code == 0, done.err
    keeps_its_contract("export", done.document)
    figures = done.document["agreement"]
    assert figures["photos_labelled"] == 40
    assert "times as fast" in done.err
    assert ("slower" in done.err) is (figures["speed"]["ratio"] < 1)
    squares = ("--set", "detector.rectangular=false")  # as the gate has them
    measured = cli("evaluate", "--weights", "int8", "--data", trained.data, "--split", "test", "--json", *squares)
    assert measured.code == 0, measured.err
    assert measured.document["map50_95"] == pytest.approx(figures["map50_95"])
    images = trained.data.parent / "valid" / "images"
    built = cli("build-index", images, "--index", "c", "--detector", "int8", "--embedder", TINY / "embedder")
    assert built.code == 0, built.err
    answer = cli("query", sorted(images.iterdir())[0], "--index", "c", "--json")
    assert answer.code == 0, answer.err
    assert answer.document["garments"][0]["hits"]
    assert Bundle.open(tmp_path / "int8").source["conversion"]["calibrated_on"] == 96


def test_a_drifted_export_exits_3_says_the_figure_and_writes_nothing(
    trained: Trained, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    black = tmp_path / "black"
    black.mkdir()
    for n in range(4):
        Image.new("RGB", (80, 64)).save(black / f"{n}.png")
    words = ("--images", black, "--data", trained.data, "--precision", "int8", "calibration=4")
    done = cli("export", trained.weights, "--out", "x", *words)
    assert done.code == 3, done.err
    assert "points of mAP50-95" in done.err
    assert not (tmp_path / "x").exists()
    assert is_bundle(tmp_path / "x") is False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--precision", "int4"), "export.precision"),
        (("--format", "coreml"), "unknown format"),
        (("nonsense",), "unexpected argument 'nonsense'"),
        (("colour=1",), "unknown setting export.colour"),
        (("--images", "none"), "none"),
        (("--format", "engine"), "project.device=tensorrt"),
        (("--out", "."), "exists and is not a bundle"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(
    words: tuple[str, ...], said: str, trained: Trained, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    done = cli("export", trained.weights, "--out", "x", *words)
    assert done.code == 2, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_in_another_precision_needs_photos_to_be_judged_on(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "encoder").mkdir()
    done = cli("export", "encoder", "--out", "x", "--precision", "int8")
    assert (done.code, "int8 must be tested on your photos" in done.err) == (2, True)
