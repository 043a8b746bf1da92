"""EfficientDet and Faster R-CNN: trained, resumed, exported, checked against their own libraries,
served.
"""

import csv
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Result, keeps_its_contract
from PIL import Image

from fashionrec.config import TrainConfig, load_config
from fashionrec.dataset.prepare.prepare import write_data_yaml
from fashionrec.detector.detect import Detector
from fashionrec.detector.efficientdet import anchors_of
from fashionrec.errors import ConfigError, ModelError, Refused
from fashionrec.evaluation.detection.evaluator import evaluate_detector
from fashionrec.models.bundle import Bundle
from fashionrec.models.runs import Run, read_run

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")
pytest.importorskip("effdet")
pytest.importorskip("torchvision")

EFFICIENTDET, FASTER_RCNN = "efficientdet_d0", "fasterrcnn_mobilenet_v3_large_320_fpn"
SIDES = {EFFICIENTDET: 128, FASTER_RCNN: 64}
PRIORS = {EFFICIENTDET: "class_net.predict.conv_pw", FASTER_RCNN: "roi_heads.box_predictor.cls_score"}


def pictures(folder: Path, counts: dict[str, int]) -> Path:
    """Pictures with a coloured rectangle whose class is its colour; the last of each split has
    none.
    """
    colours = ["crimson", "navy", "purple", "orange", "green"]
    rng = np.random.default_rng(3)
    for split, count in counts.items():
        for sub in ("images", "labels"):
            (folder / split / sub).mkdir(parents=True)
        for n in range(count):
            image, line = Image.new("RGB", (80, 64), "lightgray"), ""
            if n < count - 1:
                x, y, w, h = (int(v) for v in (rng.integers(0, 30), rng.integers(0, 20), 40, rng.integers(24, 40)))
                image.paste(colours[n % 5], (x, y, x + w, y + h))
                line = f"{n % 5} {(x + w / 2) / 80} {(y + h / 2) / 64} {w / 80} {h / 64}\n"
            image.save(folder / split / "images" / f"{split}{n}.png")
            (folder / split / "labels" / f"{split}{n}.txt").write_text(line)
    write_data_yaml(folder, list(counts))
    return folder / "data.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("data"), {"train": 3, "valid": 6})


def train(config: TrainConfig, runs: Path, **options: Any) -> Run:
    """Train as the command does, by the shipped settings."""
    from fashionrec.detector.training.train import train_detector

    shipped = load_config(env={}).config

    def evaluate(detector: Detector, data: Path, split: str) -> dict[str, Any]:
        return evaluate_detector(detector, data, split, shipped.evaluate, shipped.images).to_dict()

    return train_detector(config, runs, limits=shipped.images, evaluate=evaluate, **options)


def settings(data: Path, model: str, *words: str) -> TrainConfig:
    own = (f"data={data}", f"model={model}", f"imgsz={SIDES.get(model, 128)}", "batch=4", "workers=0", "device=cpu")
    sets = [f"train.{word}" for word in (*own, "epochs=1", "pretrained=false", *words)]
    return load_config(sets=sets, env={}).config.train


@pytest.fixture(scope="module", params=[EFFICIENTDET, FASTER_RCNN])
def trained(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    told: list[str] = []
    runs = tmp_path_factory.mktemp("runs")
    run = train(settings(data, request.param, f"name={request.param}"), runs, log=told.append)
    assert "learning rate" in told[1]
    return run.path


@pytest.fixture(scope="module")
def lively(trained: Path) -> Path:
    """The checkpoint, its norms settled and its scores raised: after one epoch it would hardly tell
    one photo from another.
    """
    from fashionrec.detector.training.families import family_of_weights
    from fashionrec.detector.training.families.checkpoint import About, load_weights, save_weights

    weights = trained / "weights" / "best.safetensors"
    about = About.of(weights)
    learner = family_of_weights(weights).build(about)
    load_weights(weights, learner.model)
    torch.manual_seed(1)
    for module in learner.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    detector = Detector(unwritten(learner.spec), conf=0.1, iou=0.5, max_garments=9)
    learner.model.train()
    learner.losses(torch.from_numpy(detector.inputs(PHOTOS)), [(torch.zeros(0, 4), torch.zeros(0).long())] * 3)
    last = learner.model.get_submodule(PRIORS[about.model])
    with torch.no_grad():
        last.weight.normal_(std=0.3 if about.model == EFFICIENTDET else 1.0)
        last.bias.fill_(-1.0)
        if about.model == EFFICIENTDET:
            learner.model.get_submodule("box_net.predict.conv_pw").weight.normal_(std=0.005)
    out = trained.parent / "lively.safetensors"
    save_weights(out, learner.model, dataclasses.replace(about, imgsz=2 * about.imgsz))
    return out


@pytest.fixture(scope="module")
def graph(lively: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Its graph, exported for a smaller input than it was trained with."""
    from fashionrec.detector.training.families import family_of_weights, metadata

    side = SIDES[metadata(lively)["model"]]
    made = family_of_weights(lively).to_graph(lively, tmp_path_factory.mktemp("graph"), side)
    assert made.spec["imgsz"] == side
    answers = {id(photo): (made.reference(photo), made.pixels(photo)) for photo in PHOTOS}
    return dataclasses.replace(
        made, reference=lambda photo: answers[id(photo)][0], pixels=lambda photo: answers[id(photo)][1]
    )


def unwritten(spec: dict[str, Any], path: Path = Path()) -> Bundle:
    return Bundle(path.parent, "detector", "unwritten", "", {"detect": path.name}, spec, {}, {}, {})


def noise(width: int, height: int, seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


PHOTOS = [noise(*size, seed=n) for n, size in enumerate([(128, 128), (200, 90), (61, 77)])]


def test_a_run_records_what_made_it(trained: Path, data: Path) -> None:
    run = read_run(trained)
    assert (run.kind, run.verb, run.status, run.promoted, run.epochs) == ("detector", "train", "done", True, 1)
    record = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    keeps_its_contract("run", {key: value for key, value in record.items() if key not in ("config", "versions")})
    assert sorted(path.name for path in (trained / "weights").iterdir()) == ["best.safetensors", "last.safetensors"]
    (row,) = csv.DictReader((trained / "results.csv").read_text(encoding="utf-8").splitlines())
    assert float(row["map50_95"]) == pytest.approx(run.metrics["map50_95"], abs=1e-5)
    assert float(row["loss"]) > 0


def test_a_checkpoint_says_what_it_is_and_holds_no_pickle(trained: Path) -> None:
    from fashionrec.detector.training.families import classes_of, family_of_weights, metadata

    weights = trained / "weights" / "best.safetensors"
    assert family_of_weights(weights) is family_of_weights(trained / "weights" / "last.safetensors")
    assert metadata(weights)["model"] == trained.name
    assert classes_of(weights) == ["dress", "pants", "skirt&pants", "skirt", "top"]
    (trained / "weights" / "torn.safetensors").write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="is not a detector checkpoint"):
        metadata(trained / "weights" / "torn.safetensors")
    (trained / "weights" / "torn.safetensors").unlink()


def test_an_export_agrees_with_its_library_and_is_served(
    trained: Path, cli: Callable[..., Result], photos: Path
) -> None:
    words = (
        "--detector",
        trained,
        "--embedder",
        TINY / "embedder",
        "--index",
        "catalogue",
        "--set",
        "detector.conf=0.001",
    )
    built = cli("build-index", photos, *words)
    assert built.code == 0, built.err
    bundle = Bundle.open(trained / "weights" / "best.bundle", "detector", verify=True)
    assert bundle.agreement["score_difference_max"] < 1e-4
    assert bundle.agreement["input_difference_max"] < 1
    assert bundle.agreement.get("anchors_compared") or bundle.agreement.get("boxes_compared")
    asked = cli("query", photos / "orange-navy.jpg", "--index", "catalogue", "--json", "--set", "detector.conf=0.001")
    assert asked.code == 0, asked.err
    assert asked.document["garments"]


def test_the_lively_checkpoint_agrees_and_finds_the_same_alone_and_in_a_batch(graph: Any) -> None:
    from fashionrec.detector.training.gate import check

    figures = check(graph.reference, unwritten(graph.spec, graph.path), PHOTOS, graph.pixels)
    assert figures["detections"] == figures["detections_alone"] > 10
    assert figures["box_difference_px_max"] < 0.1
    detector = Detector(unwritten(graph.spec, graph.path), conf=0.25, iou=0.6, max_garments=20)
    assert detector.detect(PHOTOS) == [detector.detect([photo])[0] for photo in PHOTOS]


def shifted(reference: Callable[[Image.Image], np.ndarray]) -> Callable[[Image.Image], np.ndarray]:
    """A source whose classes are one off what the export says."""

    def answer(photo: Image.Image) -> np.ndarray:
        rows = reference(photo).copy()
        if rows.shape[1] == 6:
            rows[:, 5] = (rows[:, 5] + 1) % 5
            return rows
        return np.concatenate([rows[:4], np.roll(rows[4:], 1, axis=0)])

    return answer


FAULTS: dict[str, tuple[dict[str, Any], str | None]] = {
    "mean": ({"mean": [0.5, 0.5, 0.5]}, None),
    "std": ({"std": [0.5, 0.5, 0.5]}, EFFICIENTDET),
    "channels": ({"mean": [0.406, 0.456, 0.485], "std": [0.225, 0.224, 0.229]}, None),
    "scale": ({"scale": 1.0}, FASTER_RCNN),
    "letterbox": ({"pad": 0}, EFFICIENTDET),
    "anchors": ({"anchors": {"anchor_scale": 3.0}}, EFFICIENTDET),
    "aspects": ({"anchors": {"aspect_ratios": [[1.0, 1.0], [0.7, 1.4], [1.4, 0.7]]}}, EFFICIENTDET),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bundle_with_a_planted_fault_is_refused(graph: Any, fault: str) -> None:
    from fashionrec.detector.training.gate import check

    change, only = FAULTS[fault]
    if only and graph.source["architecture"] != only:
        pytest.skip("the fault of another family")
    spec = graph.spec | change
    if "anchors" in change:
        spec["anchors"] = graph.spec["anchors"] | change["anchors"]
    with pytest.raises(Refused, match="does not match its source"):  # by its answers alone
        check(graph.reference, unwritten(spec, graph.path), PHOTOS)


def test_classes_off_by_one_are_refused(graph: Any) -> None:
    from fashionrec.detector.training.gate import check

    with pytest.raises(Refused, match="does not match its source"):
        check(shifted(graph.reference), unwritten(graph.spec, graph.path), PHOTOS, graph.pixels)


def test_a_wrong_input_is_refused_however_little_was_learnt(graph: Any) -> None:
    """A network that answers everything alike would let it pass, so the input itself is
    compared.
    """
    from fashionrec.detector.training.gate import MAX_GREY, same_input

    class Swapped(Detector):
        def inputs(self, photos: Any) -> np.ndarray:
            return super().inputs(photos)[:, ::-1].copy()

    def differs(kind: type[Detector], **change: Any) -> float:
        detector = kind(unwritten(graph.spec | change, graph.path), conf=0.25, iou=0.6, max_garments=9)
        return same_input(detector, PHOTOS, graph.pixels)

    assert differs(Detector) < 0.1
    assert differs(Swapped) > MAX_GREY
    assert differs(Detector, mean=[0.456, 0.456, 0.406]) > MAX_GREY
    assert differs(Detector, std=[0.25, 0.25, 0.25]) > MAX_GREY
    assert differs(Detector, pad=110) > MAX_GREY


def test_efficientdet_is_decoded_as_effdet_does_it(graph: Any, lively: Path) -> None:
    if graph.spec["head"] != "efficientdet":
        pytest.skip("Faster R-CNN has no anchors to decode")
    import effdet
    from safetensors.torch import load_file

    model = effdet.create_model(
        EFFICIENTDET, num_classes=5, pretrained=False, pretrained_backbone=False, image_size=(128, 128)
    )
    model.load_state_dict(load_file(lively))
    bench = effdet.DetBenchPredict(model.eval())
    photo = PHOTOS[0]  # as large as the input: nothing is resized
    tensor = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1).float()[None] / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = bench((tensor - mean) / std)[0].numpy()
    expected = expected[expected[:, 4] > 0.3]
    detector = Detector(unwritten(graph.spec, graph.path), conf=0.3, iou=0.5, max_garments=100)
    (found,) = detector.predict([photo], max_det=100, multi_label=True)
    corners = np.clip(expected[:, :4], 0, 128)
    expected = expected[(corners[:, 2:] > corners[:, :2]).all(axis=1)]  # those in the picture
    assert len(found) == len(expected) > 20
    assert np.allclose(found.scores, expected[:, 4], atol=1e-4)
    assert np.allclose(found.boxes, np.clip(expected[:, :4], 0, 128), atol=0.05)
    assert (found.class_ids == expected[:, 5] - 1).all()


@pytest.mark.parametrize(
    ("model", "side"), [("efficientdet_d0", 128), ("tf_efficientdet_d7x", 512), ("efficientdetv2_dt", 256)]
)
def test_anchors_are_effdets(model: str, side: int) -> None:
    from effdet.anchors import Anchors
    from effdet.config import get_efficientdet_config

    config = get_efficientdet_config(model)
    config.image_size = (side, side)
    names = ("min_level", "max_level", "num_scales", "anchor_scale")
    aspects = [aspect if isinstance(aspect, float) else tuple(aspect) for aspect in config.aspect_ratios]
    about = {**{name: config[name] for name in names}, "aspect_ratios": aspects}
    ours, theirs = anchors_of(side, about), Anchors.from_config(config).boxes.numpy()
    y1, x1, y2, x2 = theirs.T
    assert np.allclose(ours, np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1), atol=1e-3)


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from fashionrec.detector.training.train import recalled

    def stop(epoch: int, epochs: int, figures: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    data = pictures(tmp_path / "data", {"train": 2, "valid": 2})
    words = ("epochs=2", "name=a", "patience=0")
    whole = train(settings(data, FASTER_RCNN, *words), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(settings(data, FASTER_RCNN, *words), tmp_path / "cut", progress=stop)
    assert read_run(tmp_path / "cut/train/a").status == "failed"
    with pytest.raises(ConfigError, match=r"cannot be resumed with lr0=0\.5"):
        train(settings(data, FASTER_RCNN, *words, "lr0=0.5", "resume=true"), tmp_path / "cut")
    config = recalled(settings(data, FASTER_RCNN, "name=a"), tmp_path / "cut", ())
    told: list[int] = []
    run = train(config, tmp_path / "cut", progress=lambda epoch, epochs, figures: told.append(epoch))
    assert told == [2]
    assert run.metrics == whole.metrics
    first, second = (load_file(path) for path in (whole.weights_path("last"), run.weights_path("last")))
    assert all(torch.allclose(first[name].float(), second[name].float(), atol=1e-5) for name in first)
    assert (run.path / "results.csv").read_text() == (whole.path / "results.csv").read_text()


def test_what_a_family_does_not_know_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    for model, word, match in (
        (EFFICIENTDET, "mosaic=0.5", "does not support the option mosaic"),
        (EFFICIENTDET, "imgsz=96", "multiple of 128, not 96"),
        (FASTER_RCNN, "imgsz=100", "multiple of 32, not 100"),
        (FASTER_RCNN, "optimizer=MuSGD", "optimizer=MuSGD"),
        (FASTER_RCNN, "balance=loss", "balance=loss"),
        (FASTER_RCNN, "device=[0, 1]", "a single device"),
        (FASTER_RCNN, "batch=-1", "batch=-1"),
    ):
        with pytest.raises(ConfigError, match=match):
            train(settings(data, model, word), tmp_path)
    with pytest.raises(ModelError, match="effdet has no model efficientdet_d33") as caught:
        train(settings(data, "efficientdet_d33"), tmp_path)
    assert caught.value.hint == "did you mean efficientdet_d3?"
    with pytest.raises(ModelError, match="unknown torchvision model"):
        train(settings(data, "fasterrcnn_resnet5_fpn"), tmp_path)


def test_a_side_that_does_not_fit_names_the_ones_that_do(data: Path, tmp_path: Path) -> None:
    for model, side, hint in (
        (EFFICIENTDET, 96, "imgsz=128"),  # there is none below
        (EFFICIENTDET, 300, "imgsz=384, or 256"),
        (FASTER_RCNN, 100, "imgsz=96"),
        (FASTER_RCNN, 10, "imgsz=32"),
    ):
        with pytest.raises(ConfigError, match=f"not {side}") as caught:
            train(settings(data, model, f"imgsz={side}"), tmp_path)
        assert caught.value.hint == hint


def test_published_weights_are_taken_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the published name and shape lies where torch keeps what it has fetched."""
    from fashionrec.detector.training.families import torchvision as family
    from fashionrec.detector.training.families.checkpoint import About
    from fashionrec.detector.training.families.plain import start

    theirs = About("torchvision", FASTER_RCNN, {n: str(n) for n in range(90)}, 64, notes={"pretrained": True})
    state = family.build(theirs).model.state_dict()
    name = Path(family.MODELS[FASTER_RCNN][0].url).name
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "hub" / "checkpoints" / name)
    told: list[str] = []
    ours = About("torchvision", FASTER_RCNN, {0: "dress", 1: "top"}, 64)
    learner, about = start(family, ours, told.append)
    assert "trained on COCO" in told[0]
    assert about.notes == {"pretrained": True}
    own = learner.model.state_dict()
    assert torch.equal(own["backbone.fpn.inner_blocks.0.0.weight"], state["backbone.fpn.inner_blocks.0.0.weight"])
    assert own["roi_heads.box_predictor.cls_score.weight"].shape[0] == 3
    os.truncate(tmp_path / "hub" / "checkpoints" / name, 1000)  # what a full disk leaves
    with pytest.raises(ModelError, match=r"pretrained weights of .* are unusable"):
        start(family, ours, told.append)


def test_boxes_go_where_the_pixels_go(tmp_path: Path) -> None:
    from fashionrec.detector.training.families.photos import LabelledPhotos, Variation

    data, limits = tmp_path / "images", load_config(env={}).config.images
    data.mkdir()
    (tmp_path / "labels").mkdir()
    image = Image.new("RGB", (80, 64), "white")
    image.paste("red", (20, 10, 50, 40))
    image.save(data / "a.png")
    (tmp_path / "labels" / "a.txt").write_text(f"3 {35 / 80} {25 / 64} {30 / 80} {30 / 64}\n")
    varied = Variation(fliplr=0.5, flipud=0.5, translate=0.1, scale=0.3)
    photos = LabelledPhotos([data / "a.png"], 128, 114, varied, seed=0, limits=limits)
    seen = set()
    for epoch in range(12):
        photos.epoch = epoch
        square, boxes, classes = photos[0]
        rows, columns = np.nonzero((square[..., 0] > 200) & (square[..., 1] < 60))
        assert boxes[0] == pytest.approx((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), abs=1.5)
        assert classes.tolist() == [3]
        seen.add(tuple(boxes[0].round()))
        again, _, _ = photos[0]
        assert np.array_equal(square, again)
    assert len(seen) > 8
    turned = LabelledPhotos([data / "a.png"], 128, 114, Variation(degrees=40), seed=0, limits=limits)
    square, boxes, _ = turned[0]
    rows, columns = np.nonzero((square[..., 0] > 200) & (square[..., 1] < 60))
    assert boxes[0] == pytest.approx((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), abs=2)


@pytest.mark.slow
def test_a_training_starts_from_a_checkpoint_of_other_classes(trained: Path, data: Path, tmp_path: Path) -> None:
    if trained.name != FASTER_RCNN:
        pytest.skip("the code is the same")
    other = pictures(tmp_path / "other", {"train": 3, "valid": 3})
    other.write_text(other.read_text().replace("dress", "gown"))
    told: list[str] = []
    config = settings(other, str(trained / "weights" / "best.safetensors"), "imgsz=64")
    run = train(config, tmp_path / "runs", log=told.append)
    assert "except its class layers, whose classes differ" in told[0]
    assert run.status == "done"
