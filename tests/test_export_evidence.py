"""Test what an export is made and judged by: which photos of a folder or a data set, and what is
said of those that are no photos.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fashionrec.config import load_config
from fashionrec.errors import DataError

pytestmark = pytest.mark.train
pytest.importorskip("torch")
pytest.importorskip("ultralytics")

from fashionrec.detector.training.evidence import Evidence, choose_evidence  # noqa: E402

LIMITS = load_config(env={}).config.images


def measuring(data: Path, split: str) -> Any:
    return f"{data.name} {split}"


def chosen(images: Path | None, data: Path | None, *words: str) -> Evidence:
    settings = load_config(sets=[f"export.{word}" for word in words], env={}).config.export
    return choose_evidence(images, data, settings, LIMITS, measuring)


def folder(path: Path, count: int) -> list[Path]:
    path.mkdir(parents=True)
    photos = [path / f"{n:03}.jpg" for n in range(count)]
    for photo in photos:
        photo.touch()
    return photos


def data_set(root: Path, **splits: int) -> Path:
    """Empty photos by split; the first of each has a label."""
    for split, count in splits.items():
        folder(root / split / "images", count)
    lines = [f"{'val' if split == 'valid' else split}: {split}/images\n" for split in splits]
    (root / "data.yaml").write_text("".join(lines) + "names: [top]\n")
    return root / "data.yaml"


@pytest.mark.parametrize(
    ("count", "calibration", "apart"),
    [(70, 6, True), (70, 7, False), (5, 2, False), (5, 9, False), (200, 36, True)],
)
def test_a_folder_is_dealt_in_two_where_64_are_left(count: int, calibration: int, apart: bool, tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", count)
    found = chosen(tmp_path / "photos", None, f"calibration={calibration}")
    assert found.calibration == random.Random(0).sample(photos, min(calibration, count))
    left = [photo for photo in photos if photo not in found.calibration] if apart else photos
    most = min(64, len(left))
    assert found.photos == [left[n * len(left) // most] for n in range(most)]
    assert (found.prepared, found.measure, found.limits) == (False, None, LIMITS)


def test_a_folder_without_photos_and_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        chosen(tmp_path / "empty", None)
    assert str(caught.value) == f"no photos in {tmp_path / 'empty'}"
    found = chosen(None, None)
    assert (found.photos, found.calibration, found.prepared, found.measure) == ((), (), False, None)
    assert (Evidence().prepared, Evidence().tolerance) == (False, 0.0)  # photos as they are, and nothing may be lost


@pytest.mark.parametrize(
    ("splits", "judged", "made"),
    [
        ({"train": 80, "valid": 3, "test": 70}, "test", "train"),
        ({"train": 80, "valid": 70}, "valid", "train"),
        ({"valid": 2, "test": 3}, "test", "valid"),
        ({"train": 5}, "train", "train"),
        ({"test": 5}, "test", "test"),
    ],
)
def test_what_a_data_set_is_made_by_does_not_judge(
    splits: dict[str, int], judged: str, made: str, tmp_path: Path
) -> None:
    data = data_set(tmp_path / "d", **splits)
    found = chosen(None, data, "calibration=8")
    assert found.measure == f"data.yaml {judged}"
    known = sorted((data.parent / made / "images").iterdir())
    assert found.calibration == random.Random(0).sample(known, min(8, len(known)))
    others = sorted((data.parent / judged / "images").iterdir())
    most = min(64, len(others))
    assert found.photos == [others[n * len(others) // most] for n in range(most)]
    assert found.prepared is False
    (data.parent / "dataset.json").write_text(json.dumps({"pixels": {"equalize": True}}))
    assert chosen(None, data).prepared is True
    photos = folder(tmp_path / "photos", 3)  # of the user's own, as they are
    both = chosen(tmp_path / "photos", data)
    assert (both.photos, sorted(both.calibration), both.prepared) == (photos, photos, False)
    assert both.measure == f"data.yaml {judged}"


def test_the_loss_that_is_tolerated_is_that_of_the_precision() -> None:
    words = ("tolerance.fp32=0.125", "tolerance.fp16=0.25", "tolerance.int8=2")
    for precision, tolerance in (("fp32", 0.125), ("fp16", 0.25), ("int8", 2.0)):
        assert chosen(None, None, *words, f"precision={precision}").tolerance == tolerance


def test_photos_that_cannot_be_read_are_left_out_unless_all_are(tmp_path: Path) -> None:
    broken, red = tmp_path / "broken.png", tmp_path / "red.png"
    broken.write_bytes(b"no photo")
    Image.new("RGB", (6, 4), "red").save(red)
    told: list[str] = []
    found = list(Evidence(limits=LIMITS).read([broken, red, broken, red], told.append))
    assert [(one.size, one.getpixel((0, 0))) for one in found] == [((6, 4), (255, 0, 0))] * 2
    assert len(told) == 2
    assert told[0].startswith(f"left out: {broken}")
    with pytest.raises(DataError, match=r"^none of the photos can be read$"):
        list(Evidence(limits=LIMITS).read([broken], told.append))
    with pytest.raises(TypeError, match="photos need limits"):
        list(Evidence().read([red], told.append))
