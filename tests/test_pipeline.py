"""The build's pipeline: order, bounds, batches across photos, and that whatever ends it ends its
threads and processes.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, two_halves
from PIL import Image

from fashionrec.catalogue.build.pipeline import Models, find_garments, open_models
from fashionrec.catalogue.build.tuning import Plan
from fashionrec.config import Config, load_config
from fashionrec.errors import FashionrecError, ImageError
from fashionrec.garments import FinderSettings, GarmentFinder
from fashionrec.models.bundle import Bundle
from fashionrec.photos.images import crop_rectangle, read_photo
from fashionrec.store.journal import FoundPhoto
from fashionrec.types import Box, Garment


def settings(*sets: str) -> Config:
    return load_config(sets=sets, env={}).config


CONFIG = settings()


class FakeDetector:
    """Finds as many garments in a photo as its red says."""

    imgsz = 64

    def __init__(self, fault: Exception | None = None) -> None:
        self.batches: list[int] = []
        self.fault = fault

    def shape(self, width: int, height: int) -> tuple[int, int]:
        return (64, 64) if width > height else (32, 64)

    def detect(self, photos: Sequence[Image.Image]) -> list[list[Garment]]:
        self.batches.append(len(photos))
        if self.fault:
            raise self.fault
        assert len({self.shape(*photo.size) for photo in photos}) == 1
        found = []
        for photo in photos:
            count = int(np.asarray(photo)[0, 0, 0])
            found.append([Garment(n, "top", 0.9, Box(n, 0, n + 4, 6)) for n in range(count)])
        return found


class FakeEmbedder:
    """A crop's vector is the colour of its middle."""

    side, dim = 8, 3

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[int] = []
        self.seconds = seconds

    cuts_off = False

    def encoder_view(self, crops: Sequence[Image.Image]) -> list[Image.Image]:
        return list(crops)

    def embed_view(self, crops: Sequence[Image.Image]) -> np.ndarray:
        self.batches.append(len(crops))
        time.sleep(self.seconds)
        middles = [np.asarray(crop)[crop.height // 2, crop.width // 2] for crop in crops]
        return np.array(middles, np.float32)


def models(detector: object, embedder: object, plan: Plan = Plan(2, 1, 1, 4, 2)) -> Models:
    finder = GarmentFinder(detector, FinderSettings.of_build(CONFIG, FakeEmbedder.side))  # type: ignore[arg-type]
    return Models(finder, embedder, plan)  # type: ignore[arg-type]


def draw(folder: Path, counts: Sequence[int]) -> list[tuple[str, Path]]:
    """PNGs, each of which says how many garments it has, and which it is."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for n, count in enumerate(counts):
        path = folder / f"{n:03}.png"
        Image.new("RGB", (20, 10) if n % 3 else (10, 20), (count, n, 0)).save(path)
        found.append((f"d{n}", path))
    return found


def run(photos: Sequence[tuple[str, Path]], used: Models, config: Config = CONFIG) -> list[tuple[str, object]]:
    parts = find_garments(photos, used, config, known=lambda *_: None, seconds=defaultdict(float))
    return [one for part in parts for one in part]


def nothing_left() -> None:
    """No thread and no process of a pipeline runs any more."""
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("garments", "decoded"))]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("plan", [Plan(1, 1, 1, 1, 2), Plan(2, 1, 1, 4, 2), Plan(3, 1, 4, 32, 2)])
def test_every_photo_comes_out_once_in_order_with_its_own_garments(plan: Plan, tmp_path: Path) -> None:
    counts = [n % 4 for n in range(30)]
    photos = draw(tmp_path, counts)
    photos[7][1].write_bytes(b"broken")
    embedder = FakeEmbedder()
    found = run(photos, models(FakeDetector(), embedder, plan))
    assert [digest for digest, _ in found] == [digest for digest, _ in photos]
    for n, (_, outcome) in enumerate(found):
        if n == 7:
            assert isinstance(outcome, ImageError)
            continue
        assert isinstance(outcome, FoundPhoto)
        assert (outcome.width, outcome.height) == ((20, 10) if n % 3 else (10, 20))
        assert len(outcome.garments) == max(1, counts[n])
        assert [garment.whole_photo for garment in outcome.garments] == (
            [True] if not counts[n] else [False] * counts[n]
        )
        for garment in outcome.garments:  # the vector of this photo and no other
            assert np.frombuffer(garment.vector, np.float32)[1] == n
            assert garment.thumbnail[:2] == b"\xff\xd8"
    nothing_left()


def test_crops_of_several_photos_are_embedded_together_and_those_known_not_at_all(tmp_path: Path) -> None:
    photos = draw(tmp_path, [2] * 20)
    embedder, asked = FakeEmbedder(), []

    def known(digest: str, rectangle: tuple[int, int, int, int]) -> tuple[bytes, bytes] | None:
        assert threading.current_thread() is threading.main_thread()  # it may read a database of the caller's
        asked.append((digest, rectangle))
        return (b"vector", b"thumbnail") if digest == "d3" else None

    parts = find_garments(
        photos, models(FakeDetector(), embedder, Plan(1, 1, 1, 8, 2)), CONFIG, known=known, seconds=defaultdict(float)
    )
    found = dict(one for part in parts for one in part)
    assert sum(embedder.batches) == 38
    assert embedder.batches.count(8) >= 4
    assert len(asked) == 40
    boxes = [Box(0, 0, 4, 6), Box(1, 0, 5, 6)]
    width, height = Image.open(photos[3][1]).size
    assert [cut for digest, cut in asked if digest == "d3"] == [
        crop_rectangle(width, height, box, CONFIG.crop) for box in boxes
    ]
    assert [garment.vector for garment in found["d3"].garments] == [b"vector"] * 2


def test_no_more_than_a_bound_is_held_however_many_photos_there_are(tmp_path: Path) -> None:
    """Photos are taken from the source only a bounded number ahead of what came out."""
    photos = draw(tmp_path, [1] * 60)
    taken = 0

    def source() -> Iterator[tuple[str, Path]]:
        nonlocal taken
        for n in range(600):
            taken += 1
            yield f"d{n}", photos[n % 60][1]

    plan = Plan(1, 1, 1, 2, 2)
    parts = find_garments(
        source(),
        models(FakeDetector(), FakeEmbedder(0.002), plan),
        CONFIG,
        known=lambda *_: None,
        seconds=defaultdict(float),
    )
    out = most = 0
    for part in parts:
        out += len(part)
        most = max(most, taken - out)
    assert out == taken == 600
    assert most <= 60
    nothing_left()


def test_an_error_of_a_model_is_raised_and_ends_everything(tmp_path: Path) -> None:
    photos = draw(tmp_path, [1] * 30)
    with pytest.raises(FashionrecError, match="no memory"):
        run(photos, models(FakeDetector(FashionrecError("no memory")), FakeEmbedder()))
    nothing_left()


def test_an_error_of_the_source_is_raised_and_ends_everything(tmp_path: Path) -> None:
    def source() -> Iterator[tuple[str, Path]]:
        yield from draw(tmp_path, [1] * 3)
        raise OSError("the list ends")

    with pytest.raises(OSError, match="the list ends"):
        run(source(), models(FakeDetector(), FakeEmbedder()))  # type: ignore[arg-type]
    nothing_left()


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError])
def test_what_ends_the_caller_ends_everything_at_once(fault: type[BaseException], tmp_path: Path) -> None:
    """An interrupt, a full disk, a reader that has enough: the generator is closed with most photos
    still to come.
    """
    photos = draw(tmp_path, [1] * 40) * 20
    detector = FakeDetector()
    parts = find_garments(
        photos, models(detector, FakeEmbedder(0.01)), CONFIG, known=lambda *_: None, seconds=defaultdict(float)
    )
    assert next(parts)
    with pytest.raises(fault):
        parts.throw(fault)
    nothing_left()
    assert len(detector.batches) < 400


def test_a_photo_that_stalls_its_decoder_does_not_hold_up_an_early_end(tmp_path: Path) -> None:
    from test_images import Stalling

    photos = [*draw(tmp_path, [1] * 3), ("stalls", Stalling()), *draw(tmp_path / "b", [1] * 20)]
    config = settings("build.photo_timeout=600")
    used = models(FakeDetector(), FakeEmbedder(), Plan(2, 1, 1, 1, 2))
    parts = find_garments(photos, used, config, known=lambda *_: None, seconds=defaultdict(float))
    assert next(parts)
    parts.close()
    nothing_left()


def test_a_photo_that_stalls_costs_one_row(tmp_path: Path) -> None:
    from test_images import Stalling

    photos = [*draw(tmp_path, [1] * 3), ("stalls", Stalling()), *draw(tmp_path / "b", [1] * 3)]
    found = dict(run(photos, models(FakeDetector(), FakeEmbedder()), settings("build.photo_timeout=3")))
    reasons = [getattr(outcome, "reason", "fine") for outcome in found.values()]
    assert reasons == ["fine"] * 3 + ["timeout"]  # the second folder's names are those of the first
    nothing_left()


def test_a_batch_gives_each_photo_what_it_gets_alone(tmp_path: Path) -> None:
    for n, size in enumerate([(120, 90), (333, 77), (64, 200), (500, 450), (31, 33)] * 2):
        two_halves(tmp_path / f"{n}.png", "red" if n % 3 else "white", "blue" if n % 2 else "gray", size)
    photos = [(path.name, path) for path in sorted(tmp_path.iterdir())]
    detector, embedder = Bundle.open(TINY / "detector"), Bundle.open(TINY / "embedder")

    def made(*sets: str) -> list[tuple[str, object]]:
        config = settings(*sets)
        return run(photos, open_models(detector, embedder, config), config)

    assert len(photos) == 10
    alone = made("detector.batch=1", "embedder.batch=1", "project.threads=1")
    for (_, one), (_, other) in zip(alone, made("detector.batch=4", "embedder.batch=7"), strict=True):
        assert isinstance(one, FoundPhoto)
        assert isinstance(other, FoundPhoto)
        assert [garment.box for garment in one.garments] == [garment.box for garment in other.garments]
        for a, b in zip(one.garments, other.garments, strict=True):
            assert np.allclose(np.frombuffer(a.vector, np.float32), np.frombuffer(b.vector, np.float32), atol=1e-6)


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("orientation", "size"), [(1, (2400, 1800)), (1, (2401, 1803)), (3, (2400, 1800)), (6, (2400, 1800))]
)
def test_a_large_jpeg_is_decoded_small_and_keeps_its_size_boxes_and_looks(
    orientation: int, size: tuple[int, int], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "large.jpg"
    picture(*size).save(path, quality=92, exif=exif)
    whole, part = read_photo(path, CONFIG.images), read_photo(path, CONFIG.images, 600)
    assert part.reduced
    assert not whole.reduced
    assert (part.width, part.height) == (whole.width, whole.height)
    assert max(part.pixels.size) == -(-size[0] // 4)
    box = Box(300, 400, 1300, 1400)
    plain = CONFIG.crop.model_copy(update={"margin": 0.0})  # cut between pixels of both
    a, b = (photo.crop(box, plain).resize((64, 64)) for photo in (whole, part))
    assert np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean() < 1
    assert part.shows(box, CONFIG.crop, 224)
    assert not part.shows(Box(300, 400, 700, 800), CONFIG.crop, 224)
    assert whole.shows(Box(300, 400, 310, 410), CONFIG.crop, 224)
    back = part.in_full(Box(0, 0, part.pixels.width, part.pixels.height))
    assert back == (0, 0, whole.width, whole.height)
    assert not read_photo(path, settings("images.scaled_decoding=never").images, 600).reduced
    assert not read_photo(path, CONFIG.images, 1300).reduced


def test_an_indexed_photo_of_many_pixels_finds_itself_and_a_small_garment_is_seen_whole(tmp_path: Path) -> None:
    from fashionrec import Catalogue
    from fashionrec.catalogue.build.build import build_catalogue
    from fashionrec.products.tables import read_products

    photos = tmp_path / "photos"
    photos.mkdir()
    for name, size in (("a", (2400, 1800)), ("b", (1900, 1700))):
        two_halves(photos / f"{name}.jpg", "red", "blue", size)
    picture(2000, 1600).save(photos / "c.jpg")
    build_catalogue(
        read_products(photos),
        tmp_path / "c",
        detector_bundle=Bundle.open(TINY / "detector"),
        embedder_bundle=Bundle.open(TINY / "embedder"),
        config=CONFIG,
        source="photos",
    )
    with Catalogue.open(tmp_path / "c") as catalogue:
        assert catalogue.finder.read(photos / "a.jpg").reduced
        for name, size in (("a", (2400, 1800)), ("b", (1900, 1700))):
            (answer,) = catalogue.search(photos / f"{name}.jpg", k=1)
            assert (answer.width, answer.height) == size
            for found in answer.garments:
                assert found.hits[0].item.image == f"{name}.jpg"
                assert found.hits[0].score == pytest.approx(1.0, abs=1e-5)
                assert max(found.garment.box.x2, found.hits[0].item.box.x2) > size[0] / 2 - 10


def test_a_garment_too_small_in_the_reduced_photo_is_cut_from_all_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    picture(2400, 1800).save(path, quality=95)

    class Small(FakeDetector):
        imgsz = 300

        def detect(self, photos: Sequence[Image.Image]) -> list[list[Garment]]:
            assert photos[0].width == 600  # a quarter
            return [[Garment(0, "top", 0.9, Box(10, 10, 40, 50))]]

    class Seeing(FakeEmbedder):
        size: tuple[int, int] = (0, 0)

        def embed_view(self, crops: Sequence[Image.Image]) -> np.ndarray:
            self.size = crops[0].size
            return super().embed_view(crops)

    embedder = Seeing()
    ((_, outcome),) = run([("a", path)], models(Small(), embedder))
    assert isinstance(outcome, FoundPhoto)
    assert outcome.garments[0].box == Box(40, 40, 160, 200)
    assert embedder.size == (176, 176)  # 160 and twice the margin, and not a quarter of it


def test_a_photo_that_is_removed_before_it_is_read_again_costs_one_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    picture(2400, 1800).save(path, quality=95)

    class Removing(FakeDetector):
        imgsz = 300

        def detect(self, photos: Sequence[Image.Image]) -> list[list[Garment]]:
            path.unlink()
            return [[Garment(0, "top", 0.9, Box(10, 10, 40, 50))]]

    ((_, outcome),) = run([("a", path)], models(Removing(), FakeEmbedder()))
    assert isinstance(outcome, ImageError)
    assert outcome.reason == "missing"
    nothing_left()


class Telling:
    """Stands in for a path: it is told where it is read."""

    def __init__(self) -> None:
        self.here = 0

    def __fspath__(self) -> str:
        self.here += 1
        return "nowhere"


@pytest.mark.parametrize(("workers", "here"), [(1, True), (0, False)])
def test_photos_are_decoded_in_as_many_processes_as_are_set(workers: int, here: bool) -> None:
    photo = Telling()
    found = run([("d", photo)], models(FakeDetector(), FakeEmbedder()), settings(f"build.workers={workers}"))  # type: ignore[list-item]
    assert [getattr(outcome, "reason", "fine") for _, outcome in found] == ["missing"]
    assert bool(photo.here) == here
