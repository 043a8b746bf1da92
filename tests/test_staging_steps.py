"""Photos and copies prepared one at a time: what is kept of an unfinished preparation, what is made
again, and what is lost.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashionrec.config import Config
from fashionrec.dataset.audit.boxes import BoxRules
from fashionrec.dataset.audit.inspect import Inspected, Rules, inspect, inspect_all
from fashionrec.dataset.audit.lines import Problem
from fashionrec.dataset.prepare.augment import Change
from fashionrec.dataset.prepare.rules import Frame
from fashionrec.dataset.prepare.stage import CopyJob, Failed, Staged, Treatment, stage_copies, stage_photos
from fashionrec.dataset.source import SourceImage
from fashionrec.dataset.sources.layout import guess
from fashionrec.errors import ImageError
from fashionrec.photos.decoding import Lost
from fashionrec.photos.pixels import PixelSpec

PLAIN = Treatment(PixelSpec(), 90, hashes=True)
SMALLER = Treatment(PixelSpec("fit", 20), 90, hashes=False)


def photo(path: Path, size: tuple[int, int] = (40, 30), **how: Any) -> Path:
    pixels = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **how)
    return path


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def one(path: Path, folder: Path, treatment: Treatment, config: Config, **limits: Any) -> Staged | Failed:
    image = SourceImage("its/key.jpg", path)
    images = config.images.model_copy(update=limits)
    folder.mkdir(exist_ok=True)
    ((same, outcome),) = stage_photos([image], folder, treatment, images, timeout=9.0, workers=1)
    assert same is image
    return outcome


def entry(folder: Path, path: Path, treatment: Treatment, suffix: str = ".json") -> Path:
    digest = sha(path)
    return folder / "photos" / digest[:2] / f"{digest}-{treatment.short}{suffix}"


@pytest.mark.parametrize(("name", "format_"), [("a.jpg", "JPEG"), ("a.png", "PNG"), ("a.JPEG", "JPEG")])
def test_a_photo_that_needs_nothing_is_its_own_picture(tmp_path: Path, config: Config, name: str, format_: str) -> None:
    path = photo(tmp_path / name, format=format_)
    staged = one(path, tmp_path / "s", PLAIN, config)
    assert isinstance(staged, Staged)
    assert (staged.picture, staged.copied, staged.suffix) == (path, True, f".{format_.lower().replace('e', '')}")
    assert staged.sha256 == staged.picture_sha256 == sha(path)
    assert (staged.frame, staged.size) == (Frame((40, 30), (40, 30), 1), (40, 30))
    assert (staged.format, staged.mode, len(staged.phash)) == (format_, "RGB", 64)
    assert one(path, tmp_path / "s", PLAIN, config) == staged
    assert [file.name for file in (tmp_path / "s").rglob("*") if file.is_file()] == [
        entry(tmp_path / "s", path, PLAIN).name
    ]


def test_a_photo_that_is_turned_and_made_smaller_has_a_picture_of_its_own(tmp_path: Path, config: Config) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    path = photo(tmp_path / "a.png", exif=turned)
    staged = one(path, tmp_path / "s", SMALLER, config)
    assert isinstance(staged, Staged)
    assert staged.picture == entry(tmp_path / "s", path, SMALLER, ".jpg")
    assert (staged.copied, staged.suffix, staged.phash) == (False, ".jpg", "")
    assert (staged.sha256, staged.picture_sha256) == (sha(path), sha(staged.picture))
    assert (staged.frame, staged.size) == (Frame((40, 30), (30, 40), 6), (15, 20))
    with Image.open(staged.picture) as picture:
        assert (picture.size, picture.format) == ((15, 20), "JPEG")


def test_an_entry_is_taken_as_it_is_while_it_is_whole(tmp_path: Path, config: Config) -> None:
    path, folder = photo(tmp_path / "a.jpg"), tmp_path / "s"
    first = one(path, folder, SMALLER, config)
    assert isinstance(first, Staged)
    note, whole = entry(folder, path, SMALLER), first.picture.read_bytes()
    document = json.loads(note.read_bytes())
    note.write_text(json.dumps({**document, "mode": "kept"}))
    kept = one(path, folder, SMALLER, config)
    assert isinstance(kept, Staged)
    assert (kept.mode, kept.picture_sha256) == ("kept", first.picture_sha256)
    for damage in ("{", "[]", "{}", json.dumps({**document, "suffix": "/../a"}), json.dumps({**document, "size": 3})):
        note.write_text(damage)
        assert one(path, folder, SMALLER, config) == first
    first.picture.write_bytes(whole[:-1])  # torn
    assert one(path, folder, SMALLER, config) == first
    first.picture.unlink()
    assert one(path, folder, SMALLER, config) == first
    assert first.picture.read_bytes() == whole


def test_a_photo_that_cannot_be_used_is_told_by_its_name_alone(tmp_path: Path, config: Config) -> None:
    small = photo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"no photo")
    for path, limits, reason in (
        (tmp_path / "none.jpg", {}, "missing"),
        (small, {"max_bytes": small.stat().st_size - 1}, "too-large"),
        (tmp_path / "b.jpg", {}, "not-an-image"),
        (small, {"max_pixels": 1199}, "too-many-pixels"),
    ):
        failed = one(path, tmp_path / "s", PLAIN, config, **limits)
        assert isinstance(failed, Failed)
        assert failed.reason == reason
        assert path.name in failed.message
        assert str(tmp_path) not in failed.message


def lost(function: Any, jobs: Any, *, timeout: float, workers: int) -> Iterator[tuple[Any, Any]]:
    """Every worker crashes, or stalls."""
    assert (timeout, workers) == (2.5, 3)
    for n, (key, _) in enumerate(jobs):
        yield key, Lost(("crashed", "timeout")[n % 2])


def test_a_photo_that_crashes_or_stalls_a_decoder_is_one_failure(tmp_path: Path, config: Config) -> None:
    images = [SourceImage(name, photo(tmp_path / name)) for name in ("a.jpg", "b.jpg")]
    told = stage_photos(images, tmp_path, PLAIN, config.images, timeout=2.5, workers=3, run=lost)
    crashed = ("crashed", "a.jpg crashes the image decoder")
    late = ("timeout", "b.jpg takes more than 2.5 s to decode")
    assert list(told) == [(images[0], Failed(*crashed)), (images[1], Failed(*late))]
    jobs = [(image.path, None, rules(config)) for image in images]
    assert list(inspect_all(jobs, timeout=2.5, workers=3, run=lost)) == [
        Inspected(problems=(Problem("unreadable-image", message, numbers={"reason": reason}),))
        for reason, message in (crashed, late)
    ]
    job = CopyJob(images[0].path, Change(fliplr=True), tmp_path / "copy", 90, config.images)
    with pytest.raises(ImageError, match=r"^a\.jpg crashes the image decoder$") as caught:
        list(stage_copies([job], timeout=2.5, workers=3, run=lost))
    assert caught.value.reason == "crashed"


def test_a_copy_is_made_once_and_again_where_it_is_torn(tmp_path: Path, config: Config) -> None:
    path = photo(tmp_path / "a.png")
    job = CopyJob(path, Change(fliplr=True), tmp_path / "copy", 90, config.images)

    def made() -> str:
        ((same, digest),) = stage_copies([job], timeout=9.0, workers=1)
        assert same is job
        return digest

    picture, note = tmp_path / "copy.jpg", tmp_path / "copy.json"
    digest = made()
    whole = picture.read_bytes()
    assert digest == hashlib.sha256(whole).hexdigest() == json.loads(note.read_text())["sha256"]
    with Image.open(path) as before, Image.open(io.BytesIO(whole)) as after:
        mirrored = before.convert("L").transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((4, 3), Image.Resampling.BOX)
        assert (
            np.abs(
                np.asarray(mirrored, int) - np.asarray(after.convert("L").resize((4, 3), Image.Resampling.BOX))
            ).max()
            < 8
        )
    path.rename(tmp_path / "gone.png")  # what is whole needs no photo
    assert made() == digest
    (tmp_path / "gone.png").rename(path)
    for damage in (whole[:-1], None):
        picture.unlink()
        if damage:
            picture.write_bytes(damage)
        assert (made(), picture.read_bytes()) == (digest, whole)
    for text in ("{", "[]", "{}", '{"sha256": "0"}'):
        note.write_text(text)
        assert (made(), json.loads(note.read_text())) == (digest, {"sha256": digest})


def rules(config: Config) -> Rules:
    return Rules({0: "top"}, BoxRules(0.0, 1.0, 1000.0, 1.0, 1.0, 0.0), 8, config.images)


def test_labels_that_cannot_be_read_are_a_finding_and_the_photo_is_looked_at(tmp_path: Path, config: Config) -> None:
    path = photo(tmp_path / "a.jpg")
    found = inspect((path, tmp_path / "a.txt", rules(config)))
    assert (found.size, found.sha256, found.boxes) == ((40, 30), sha(path), ())
    assert found.problems == (Problem("label-encoding", "a.txt cannot be read: No such file or directory"),)


def test_a_format_is_guessed_from_the_first_files(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / name)
    (tmp_path / "c.json").write_text('{"images": [], "annotations": []}')
    assert [guess(tmp_path, most=most) for most in (2, 3)] == ["folder", "coco"]
