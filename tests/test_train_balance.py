"""Class balance: what is drawn how often, and what weighs more in the loss."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_detector_training import FAST, TINY_MODEL

from fashionrec.config import load_config
from fashionrec.dataset.prepare.prepare import write_data_yaml

pytestmark = pytest.mark.train
pytest.importorskip("ultralytics")

#: The class of each training photo: 12 dresses, 3 pants, 1 top.
CLASSES = [0] * 12 + [1] * 3 + [4]


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("skewed")
    for split, classes in (("train", CLASSES), ("valid", [0, 1, 4])):
        for sub in ("images", "labels"):
            (folder / split / sub).mkdir(parents=True)
        for n, kind in enumerate(classes):
            Image.new("RGB", (64, 64), (40 * kind, 90, 120)).save(folder / split / "images" / f"{kind}-{n}.png")
            (folder / split / "labels" / f"{kind}-{n}.txt").write_text(f"{kind} .5 .5 .6 .6\n")
    write_data_yaml(folder, ["train", "valid"])
    return folder / "data.yaml"


def ids(*classes: int) -> np.ndarray:
    return np.array(classes, dtype=float).reshape(-1, 1)


def test_photos_of_one_class_each_are_drawn_so_that_classes_are_equal() -> None:
    from fashionrec.detector.training.balance import image_weights

    weights = image_weights([ids(kind) for kind in CLASSES], 5)
    assert weights.sum() == pytest.approx(1)
    for kind in (0, 1, 4):
        assert weights[np.array(CLASSES) == kind].sum() == pytest.approx(1 / 3)


def test_a_photo_of_several_boxes_weighs_their_mean_and_an_empty_one_the_mean_of_the_others() -> None:
    """Five boxes of class 0, one of class 1: 1/5 and 1; the third photo holds both: 0.6; the mean
    of 0.2, 0.6 is 0.4.
    """
    from fashionrec.detector.training.balance import image_weights

    weights = image_weights([ids(0, 0, 0, 0), ids(0, 1), ids()], 2)
    assert weights == pytest.approx(np.array([0.2, 0.6, 0.4]) / 1.2)
    assert image_weights([ids(), ids()], 2) == pytest.approx([0.5, 0.5])


@given(st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=30))
def test_weights_are_a_distribution(classes: list[list[int]]) -> None:
    from fashionrec.detector.training.balance import image_weights

    weights = image_weights([ids(*found) for found in classes], 5)
    assert weights.shape == (len(classes),)
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0).all()


def test_devices_share_one_draw_and_epochs_differ() -> None:
    from fashionrec.detector.training.balance import BalancedSampler

    weights = np.full(10, 0.1)
    whole = list(BalancedSampler(weights, seed=3))
    parts = [list(BalancedSampler(weights, 3, rank, 2)) for rank in (0, 1)]
    assert [index for pair in zip(*parts, strict=True) for index in pair] == whole
    sampler = BalancedSampler(weights, 3)
    first, second = list(sampler), list(sampler)
    assert first == whole != second
    resumed = BalancedSampler(weights, 3)
    resumed.set_epoch(1)
    assert list(resumed) == second
    resumed.set_epoch(1)  # the loader had fetched ahead
    assert list(resumed) not in (first, second)


def _class(photo: str) -> int:
    return int(Path(photo).stem.split("-")[0])


def trained(data: Path, folder: Path, *words: str, seen: Callable[[Any], None], event: str) -> None:
    """Train through the module's door, with a callback of ultralytics to look inside."""
    from ultralytics.utils.callbacks.base import default_callbacks

    from fashionrec.detector.training.train import train_detector

    settings = (f"data={data}", f"model={TINY_MODEL}", "epochs=1", *FAST, *words)
    config = load_config(sets=[f"train.{word}" for word in settings], env={}).config.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(default_callbacks, event, [*default_callbacks[event], seen])
        train_detector(config, folder / "runs")


@pytest.mark.parametrize("balance", ["none", "sample"])
def test_rare_classes_are_drawn_as_often_as_the_frequent(balance: str, skewed: Path, tmp_path: Path) -> None:
    """Epochs of the trainer's own loader draw what the sampler draws by the weights of the photos
    and the training's seed.
    """
    from fashionrec.detector.training.balance import BalancedSampler, image_weights

    drawn: list[Counter[str]] = []
    expected: list[Counter[str]] = []
    weights: list[Any] = []

    def look(trainer: Any) -> None:
        weights.append(getattr(trainer.model, "class_weights", None))
        photos = trainer.train_loader.dataset.im_files
        sampler = BalancedSampler(image_weights([ids(_class(photo)) for photo in photos], 5), seed=trainer.args.seed)
        for _ in range(4):
            drawn.append(Counter(name for batch in trainer.train_loader for name in batch["im_file"]))
            expected.append(Counter(photos[index] for index in sampler) if balance == "sample" else Counter(photos))

    trained(skewed, tmp_path, f"balance={balance}", seen=look, event="on_train_start")
    assert weights == [None]
    assert drawn == expected
    assert [epoch.total() for epoch in drawn] == [16] * 4
    rare = sum(count for epoch in drawn for photo, count in epoch.items() if _class(photo) != 0)
    assert (rare > 32) is (balance == "sample"), "of 64; 16 as they are"


@pytest.mark.parametrize(("words", "power"), [(["balance=loss"], 0.5), (["balance=loss", "cls_pw=1.0"], 1.0)])
def test_the_loss_weighs_classes_by_their_inverse_frequency(
    words: list[str], power: float, skewed: Path, tmp_path: Path
) -> None:
    """Three classes have boxes: 12, 3 and 1; the two others get the mean; all are scaled to a mean
    of 1.
    """
    found: list[Any] = []
    trained(
        skewed, tmp_path, *words, seen=lambda t: found.append(t.model.criterion.class_weights), event="on_train_end"
    )
    inverse = np.array([12.0, 3.0, np.nan, np.nan, 1.0]) ** -power
    inverse[np.isnan(inverse)] = np.nanmean(inverse)
    assert found[0].flatten().tolist() == pytest.approx(inverse / inverse.mean(), rel=1e-5)


def test_the_loss_of_rt_detr_cannot_be_balanced(skewed: Path, tmp_path: Path, cli: Callable[..., Result]) -> None:
    done = cli("train", f"data={skewed}", "model=rtdetr-resnet50.yaml", "balance=loss", *FAST)
    assert done.code == 2
    assert "train.balance=sample" in done.err
    assert not (tmp_path / "runs").exists()


def test_rectangles_cannot_be_balanced(skewed: Path, tmp_path: Path, cli: Callable[..., Result]) -> None:
    done = cli("train", f"data={skewed}", "model=yolov8n.yaml", "balance=sample", "rect=true", *FAST)
    assert done.code == 2
    assert "rect" in done.err
    assert not (tmp_path / "runs").exists()
