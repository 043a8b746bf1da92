"""Photos chosen for labelling, and sent to Roboflow as a batch: through the real package, against a
local server.
"""

import io
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from roboflow_server import KEY, RoboflowServer, settings_for

from fashionrec.config import Config
from fashionrec.dataset.exports.choose import Chosen, choose, disagreement, uncertainty
from fashionrec.dataset.roboflow.upload import Plan, batch_name, label_lines, plan, upload, uploaded
from fashionrec.dataset.roboflow.upload_journal import journal_path, open_journal, remember
from fashionrec.errors import Busy, ConfigError, DataError, FashionrecError
from fashionrec.photos.images import read_photo
from fashionrec.types import Box, Garment

pytest.importorskip("roboflow")

TARGET = "team/garments"
SIZE = (80, 60)


def garment(confidence: float, name: str = "top", box: Box = Box(8, 6, 40, 36)) -> Garment:
    return Garment(0, name, confidence, box)


def photo(path: Path, seed: int, size: tuple[int, int] = SIZE, *, exif: Image.Exif | None = None) -> Path:
    """A picture like no other: coarse noise, so that its perceptual hash has something to hold on
    to.
    """
    grid = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    picture = Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=95, exif=exif or Image.Exif())
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Four photos with a label of a top, one with no label file, two unlabelled."""
    root = tmp_path / "data"
    for n in range(5):
        path = photo(root / ("test" if n == 3 else "train") / "images" / f"p{n}.jpg", n)
        if n < 4:
            label = path.parents[1] / "labels" / f"p{n}.txt"
            label.parent.mkdir(exist_ok=True)
            label.write_text("1 0.3 0.35 0.4 0.5\n")
    for n in (5, 6):
        photo(root / "unlabelled" / f"p{n}.jpg", n)
    (root / "data.yaml").write_text("train: train/images\ntest: test/images\nnames: [dress, top]\n")
    return root


def detector(found: dict[int, list[Garment]], root: Path) -> Callable[[Sequence[Image.Image]], list[list[Garment]]]:
    """A detector that knows each photo of the dataset by its pixels."""
    known = {Image.open(path).convert("RGB").tobytes(): int(path.stem[1:]) for path in root.rglob("*.jpg")}

    def detect(photos: Sequence[Image.Image]) -> list[list[Garment]]:
        return [found.get(known[picture.tobytes()], []) for picture in photos]

    return detect


#: agrees, overlaps nothing, another class, sees nothing, unsure twice, unsure once, sure
FOUND = {
    0: [garment(0.9)],
    1: [garment(0.8, box=Box(60, 40, 79, 59))],
    2: [garment(0.7, name="dress")],
    3: [],
    4: [garment(0.5), garment(0.45, box=Box(50, 10, 70, 50))],
    5: [garment(0.6)],
    6: [garment(0.99)],
}


def keys(found: tuple[list[Chosen], list[dict[str, str]]]) -> list[str]:
    return [Path(one.key).stem for one in found[0]]


def test_the_most_doubtful_photos_come_first(dataset: Path, config: Config) -> None:
    detect = detector(FOUND, dataset)
    found, failed = choose(dataset, detect, 10, limits=config.images, batch=2)
    assert [(Path(one.key).stem, round(one.score, 4)) for one in found] == [
        ("p4", round(1.0 + 0.9**2, 4)),  # 0.5 counts 1, 0.45 counts (1 - 0.1)²
        ("p1", 1.8),  # a confident box that no label has, and the label without a box
        ("p2", 1.7),
        ("p3", 1.0),
        ("p5", round(0.8**2, 4)),
        ("p6", round(0.02**2, 4)),
    ]
    assert failed == []
    assert found[0].reason == "uncertainty 1.81"
    assert found[1].reason == "1 box without a label, 1 label without a box"
    assert [(one.split, one.size) for one in found[2:5]] == [("train", SIZE), ("test", SIZE), (None, SIZE)]


def test_strategies_and_the_limit(dataset: Path, config: Config) -> None:
    detect = detector(FOUND, dataset)
    assert keys(choose(dataset, detect, 2, limits=config.images)) == ["p4", "p1"]
    assert keys(choose(dataset, detect, 9, limits=config.images, strategy="disagree")) == ["p1", "p2", "p3"]
    unsure = keys(choose(dataset, detect, 9, limits=config.images, strategy="uncertain"))
    assert unsure == ["p4", "p5", "p2", "p1", "p0", "p6"], "p3 shows no box to doubt"
    done = {one.sha256 for one in choose(dataset, detect, 1, limits=config.images)[0]}
    assert "p4" not in keys(choose(dataset, detect, 9, limits=config.images, skip=done))


def test_copies_are_chosen_once_and_the_unreadable_are_told(dataset: Path, config: Config) -> None:
    (dataset / "unlabelled" / "p5.png.jpg").write_bytes((dataset / "unlabelled" / "p5.jpg").read_bytes())
    Image.open(dataset / "unlabelled" / "p5.jpg").save(dataset / "unlabelled" / "p7.jpg", quality=80)
    (dataset / "unlabelled" / "broken.jpg").write_bytes(b"\xff\xd8 no more")

    def detect(photos: Sequence[Image.Image]) -> list[list[Garment]]:
        return [[garment(0.5)] for _ in photos]

    found, failed = choose(dataset, detect, 20, limits=config.images, strategy="uncertain")
    assert len(found) == 8, "all but the one of the same bytes"
    found, _ = choose(dataset, detect, 20, limits=config.images, strategy="uncertain", near_duplicates=10)
    assert len(found) == 7, "nor the one of the same look"
    assert failed == [{"key": "unlabelled/broken.jpg", "reason": "not-an-image"}]


@given(st.floats(0, 1), st.floats(0, 1))
def test_doubt_is_greatest_at_one_half_and_grows_with_boxes(one: float, other: float) -> None:
    assert 0 <= uncertainty([garment(one)]) <= uncertainty([garment(0.5)]) == 1
    both = uncertainty([garment(one), garment(other)])
    assert both == pytest.approx(uncertainty([garment(one)]) + uncertainty([garment(other)]))
    if abs(one - 0.5) < abs(other - 0.5):
        assert uncertainty([garment(one)]) >= uncertainty([garment(other)])


def test_a_label_answers_for_one_box_only() -> None:
    label = ("top", Box(0.1, 0.1, 0.5, 0.6))
    twice = [garment(0.9), garment(0.8)]
    assert disagreement(twice, [label], SIZE, 0.6) == (pytest.approx(0.8), 1, 0)
    assert disagreement(twice, [label, label], SIZE, 0.6) == (0, 0, 0)
    assert disagreement([garment(0.3)], [label], SIZE, 0.6) == (0, 0, 0), "an unsure box still answers for a label"
    assert disagreement([garment(0.3)], [], SIZE, 0.6) == (0, 0, 0)


# ---- sending


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[RoboflowServer]:
    with RoboflowServer() as running:
        yield running


def chosen(dataset: Path, config: Config, limit: int = 10, store: Path | None = None) -> list[Chosen]:
    skip = uploaded(store, TARGET) if store else frozenset[str]()
    return choose(dataset, detector(FOUND, dataset), limit, limits=config.images, skip=skip)[0]


def planned(dataset: Path, store: Path, config: Config, batch: str = "first batch") -> Plan:
    return plan(chosen(dataset, config, store=store), TARGET, store, config, batch=batch, conf=0.35)


def boxes_of(annotation: dict[str, object], size: tuple[int, int]) -> list[tuple[str, Box]]:
    """Read an uploaded annotation as Roboflow would: YOLO lines and a labelmap."""
    names = annotation["labelmap"]
    assert isinstance(names, dict)
    found = []
    for line in str(annotation["annotationFile"]).splitlines():
        number, x, y, w, h = line.split()
        x, y, w, h = float(x) * size[0], float(y) * size[1], float(w) * size[0], float(h) * size[1]  # type: ignore[assignment]
        found.append((names[number], Box(x - w / 2, y - h / 2, x + w / 2, y + h / 2)))  # type: ignore[operator]
    return found


def test_a_plan_says_what_would_go_where_and_asks_nobody(
    server: RoboflowServer, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings_for(server, limit=4)
    monkeypatch.delenv("ROBOFLOW_API_KEY")
    made = planned(dataset, tmp_path / "store", config)
    assert (made.target, made.host) == (TARGET, server.url.removeprefix("http://"))
    assert [Path(one.key).stem for one in made.photos] == ["p4", "p1", "p2", "p3"]
    assert made.left_out == {"over the limit": 2}
    assert made.boxes == 4
    assert not server.asked
    assert not (tmp_path / "store").exists()


def test_a_batch_arrives_as_planned(server: RoboflowServer, dataset: Path, tmp_path: Path) -> None:
    config = settings_for(server)
    made = planned(dataset, tmp_path / "store", config)
    ticks: list[tuple[int, int]] = []
    report = upload(made, tmp_path / "store", config, progress=lambda done, total: ticks.append((done, total)))
    assert report.counts == {"uploaded": 6, "duplicate": 0, "failed": 0}
    assert ticks[-1] == (6, 6)
    assert sum(len(one.data) for one in server.uploads.values()) == made.bytes
    by_name = {one.name: one for one in server.uploads.values()}
    assert {name: one.split for name, one in by_name.items()} == {
        "p4.jpg": "train", "p1.jpg": "train", "p2.jpg": "train", "p3.jpg": "test", "p5.jpg": "train", "p6.jpg": "train",
    }  # fmt: skip
    assert {one.batch for one in by_name.values()} == {"first batch"}
    assert by_name["p3.jpg"].annotation is None, "nothing was detected: there is nothing to correct"
    unsure = by_name["p4.jpg"]
    assert (unsure.query["prediction"], unsure.query["jobName"]) == ("true", "first batch")
    assert unsure.annotation
    for (name, box), there in zip(boxes_of(unsure.annotation, SIZE), FOUND[4], strict=True):
        assert name == there.class_name
        assert box == pytest.approx(there.box, abs=1e-3)


def test_what_is_sent_is_upright_and_says_nothing_of_the_photographer(
    server: RoboflowServer, dataset: Path, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    exif[0x010E] = "secret place"
    path = photo(dataset / "unlabelled" / "p8.jpg", 8, exif=exif)
    assert b"secret place" in path.read_bytes()
    config = settings_for(server)
    found, _ = choose(dataset, lambda photos: [[garment(0.5)] for _ in photos], 20, limits=config.images)
    upload(plan(found, TARGET, tmp_path, config, batch="b", conf=0.3), tmp_path, config)
    sent = next(one for one in server.uploads.values() if one.name == "p8.jpg")
    assert b"secret" not in sent.data
    with Image.open(io.BytesIO(sent.data)) as picture:
        assert picture.size == (60, 80)
        assert not picture.getexif()
    assert sent.annotation
    assert boxes_of(sent.annotation, (60, 80))[0][1] == pytest.approx(Box(8, 6, 40, 36), abs=1e-3)


def test_nothing_is_sent_twice_and_the_next_batch_is_another(
    server: RoboflowServer, dataset: Path, tmp_path: Path
) -> None:
    config = settings_for(server, limit=2)
    upload(planned(dataset, tmp_path, config), tmp_path, config)
    again = planned(dataset, tmp_path, config)
    assert again.photos == (), "the batch is full"
    before = server.asked["upload"]
    upload(planned(dataset, tmp_path, config, "second"), tmp_path, config)
    assert server.asked["upload"] == before + 2
    assert [(one.name, one.batch) for one in server.uploads.values()] == [
        ("p4.jpg", "first batch"), ("p1.jpg", "first batch"), ("p2.jpg", "second"), ("p3.jpg", "second"),
    ]  # fmt: skip
    old = plan(chosen(dataset, config), TARGET, tmp_path, config, batch="third", conf=0.35)
    assert old.left_out == {"uploaded before": 4}


def test_what_the_server_has_is_done_and_still_gets_its_boxes(
    server: RoboflowServer, dataset: Path, tmp_path: Path
) -> None:
    """A kill after the server took the photo and before that was written down: the journal knows
    nothing of it.
    """
    config = settings_for(server)
    made = planned(dataset, tmp_path, config)
    upload(made, tmp_path / "lost journal", config)
    for one in list(server.uploads.values())[:2]:
        one.annotation = None
    report = upload(made, tmp_path, config)
    assert report.counts == {"uploaded": 0, "duplicate": 6, "failed": 0}
    assert len(server.uploads) == 6
    assert sum(one.annotation is not None for one in server.uploads.values()) == 5
    assert uploaded(tmp_path, TARGET) == {one.sha256 for one in made.photos}


def test_what_can_pass_is_sent_again_and_what_cannot_is_a_row(
    server: RoboflowServer, dataset: Path, tmp_path: Path
) -> None:
    config = settings_for(server, retries=1)
    server.faults = {
        "upload": [(500, {}), None, (400, {"error": {"message": "too strange"}})],
        "annotate": [(503, {"error": "busy"})],
    }
    report = upload(planned(dataset, tmp_path, config), tmp_path, config, pause=0.01)
    assert report.counts == {"uploaded": 5, "duplicate": 0, "failed": 1}
    assert [(row["key"], row["reason"]) for row in report.rows if row["state"] == "failed"] == [
        ("train/images/p1.jpg", "too strange")
    ]
    assert server.asked["upload"] == 7, "a refusal is not asked again"
    again = upload(planned(dataset, tmp_path, config), tmp_path, config)
    assert [row["key"] for row in again.rows] == ["train/images/p1.jpg"]
    assert again.counts["uploaded"] == 1


def test_an_answer_that_the_package_cannot_read_may_pass(server: RoboflowServer, dataset: Path, tmp_path: Path) -> None:
    """The package looks for a message within an error that is a plain text, and raises
    AttributeError.
    """
    config = settings_for(server, retries=1)
    odd = (500, {"error": "a plain text"})
    server.faults = {"upload": [odd, None, odd, odd]}
    report = upload(planned(dataset, tmp_path, config), tmp_path, config, pause=0.01)
    assert report.counts == {"uploaded": 5, "duplicate": 0, "failed": 1}
    assert report.rows[1]["reason"] == "a response that the roboflow package cannot read"


def test_a_lost_connection_stops_the_batch_and_the_next_call_goes_on(
    server: RoboflowServer, dataset: Path, tmp_path: Path
) -> None:
    config = settings_for(server)
    server.faults = {"upload": [None, None, "drop"], "annotate": [None, "drop"]}
    with pytest.raises(FashionrecError, match="1 of 6 photos done") as caught:
        upload(planned(dataset, tmp_path, config), tmp_path, config)
    assert KEY not in str(caught.value)
    with (tmp_path / TARGET / "uploads.jsonl").open("a") as file:
        file.write('{"sha256": "torn by a kill')
    with pytest.raises(FashionrecError, match="1 of 5 photos done"):
        upload(planned(dataset, tmp_path, config), tmp_path, config)
    assert upload(planned(dataset, tmp_path, config), tmp_path, config).counts["uploaded"] == 4
    assert len(server.uploads) == 6
    assert server.asked["upload"] == 7, "the photo whose boxes were lost was not sent again"
    assert sum(one.annotation is not None for one in server.uploads.values()) == 5
    assert KEY not in (tmp_path / TARGET / "uploads.jsonl").read_text()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda server: server.keys.clear(), "does not accept the key"),
        (lambda server: setattr(server, "owner", "others"), "the key is not for the workspace team, but for others"),
        (lambda server: setattr(server, "type", "classification"), "does not support boxes"),
        (
            lambda server: server.faults.update(upload=[(401, {"error": {"message": "revoked"}})]),
            "the key for uploads: revoked",
        ),
        (
            lambda server: server.faults.update(upload=[(403, {"error": {"message": "not for you"}})]),
            "the key for uploads: not for you",
        ),
    ],
)
def test_a_key_or_project_that_will_not_do_sends_nothing(
    harm: Callable[[RoboflowServer], object], told: str, server: RoboflowServer, dataset: Path, tmp_path: Path
) -> None:
    config = settings_for(server)
    harm(server)
    with pytest.raises(DataError, match=told) as caught:
        upload(planned(dataset, tmp_path, config), tmp_path, config)
    assert KEY not in f"{caught.value} {caught.value.hint}"
    assert not server.uploads


def one_photo(path: Path, store: Path, config: Config, key: str) -> Plan:
    """A plan of one photo under this key, with a box."""
    found = Chosen(key, path, "valid", read_photo(path, config.images).sha256, SIZE, 1.0, "why", (garment(0.9),))
    return plan([found], TARGET, store, config, batch="b", conf=0.3)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("train/images/a b&c.v2.jpg", "a-b-c.v2.jpg"),
        ("셔츠.png", "photo.jpg"),
        ("-.x-.jpg", "x.jpg"),
        ("BOX_1.X.jpg", "BOX_1.X.jpg"),
    ],
)
def test_a_photo_has_a_name_that_can_be_sent(image: str, name: str, server: RoboflowServer, tmp_path: Path) -> None:
    server.type = "instance-segmentation"  # which takes boxes too
    config = settings_for(server)
    upload(one_photo(photo(tmp_path / "a.jpg", 1), tmp_path, config, image), tmp_path, config)
    (sent,) = server.uploads.values()
    assert (sent.name, sent.split, sent.batch) == (name, "valid", "b")
    assert sent.annotation is not None
    (line,) = (tmp_path / TARGET / "uploads.jsonl").read_text().splitlines()[:1]
    entry = json.loads(line)
    assert (entry["key"], entry["batch"], entry["image"], entry["state"]) == (image, "b", "img0", "uploaded")


def test_a_photo_whose_id_was_not_told_gets_no_boxes(server: RoboflowServer, tmp_path: Path) -> None:
    config = settings_for(server)
    made = one_photo(photo(tmp_path / "a.jpg", 1), tmp_path, config, "a.jpg")
    journal = journal_path(tmp_path, TARGET)
    with open_journal(journal, TARGET):
        entry = {"sha256": made.photos[0].sha256, "key": "a.jpg", "batch": "b", "image": None, "state": "duplicate"}
        remember(journal, entry)
    report = upload(made, tmp_path, config)
    assert report.rows == ({"key": "a.jpg", "state": "duplicate", "boxes": 1, "reason": ""},)
    assert (server.asked["upload"], server.asked["annotate"]) == (0, 0)
    assert uploaded(tmp_path, TARGET) == {made.photos[0].sha256}


def test_each_pause_is_twice_as_long(server: RoboflowServer, tmp_path: Path) -> None:
    config = settings_for(server, retries=3)
    server.faults = {"upload": [(500, {})] * 3}
    made, begun = one_photo(photo(tmp_path / "a.jpg", 1), tmp_path, config, "a.jpg"), time.monotonic()
    assert upload(made, tmp_path, config, pause=0.05).counts["uploaded"] == 1
    assert time.monotonic() - begun >= 0.05 + 0.1 + 0.2
    server.faults = {"upload": ["drop"] * 2}
    config = settings_for(server, retries=1)
    made = one_photo(photo(tmp_path / "b.jpg", 2), tmp_path, config, "b.jpg")
    with pytest.raises(FashionrecError) as caught:
        upload(made, tmp_path, config, pause=0.01)
    host = server.url.removeprefix("http://")
    told = f"Roboflow ({host}) cannot be reached, or closed the connection: 0 of 1 photo done"
    assert (str(caught.value), caught.value.hint) == (told, "run this again to resume")
    assert server.asked["upload"] == 6


def test_a_photo_that_changed_is_not_sent(server: RoboflowServer, dataset: Path, tmp_path: Path) -> None:
    config = settings_for(server)
    made = planned(dataset, tmp_path, config)
    photo(dataset / "train" / "images" / "p4.jpg", 99)
    (dataset / "train" / "images" / "p1.jpg").unlink()
    report = upload(made, tmp_path, config)
    assert {row["key"]: row["reason"] for row in report.rows if row["state"] == "failed"} == {
        "train/images/p4.jpg": "changed",
        "train/images/p1.jpg": "missing",
    }


def test_one_process_uploads_at_a_time(server: RoboflowServer, dataset: Path, tmp_path: Path) -> None:
    config = settings_for(server)
    made = planned(dataset, tmp_path, config)
    (tmp_path / TARGET).mkdir(parents=True)
    with FileLock(tmp_path / TARGET / ".uploads.lock"), pytest.raises(Busy):
        upload(made, tmp_path, config)
    assert not server.asked
    assert upload(made, tmp_path, config).counts["uploaded"] == 6


def test_a_damaged_journal_is_told(server: RoboflowServer, dataset: Path, tmp_path: Path) -> None:
    journal = tmp_path / TARGET / "uploads.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text("what?\n")
    with pytest.raises(DataError, match="line 1 is damaged"):
        planned(dataset, tmp_path, settings_for(server))


def test_a_batch_has_a_name_that_can_be_sent() -> None:
    assert batch_name(None, "runs/train/week 3/best.pt", date(2026, 5, 3)) == (
        "fashionrec 2026-05-03 runs-train-week-3-best.pt"
    )
    assert batch_name("여름 셔츠", "any", date.min) == "여름 셔츠"
    for wrong in ("a&prediction=false", "50%", "#1", " ", "x" * 101):
        with pytest.raises(ConfigError):
            batch_name(wrong, "any", date.min)


corners = st.tuples(st.floats(-20, 120), st.floats(-20, 120), st.floats(1, 100), st.floats(1, 100))


@given(st.lists(st.tuples(corners, st.sampled_from(["top", "skirt&pants", "dress"]), st.floats(0, 1)), max_size=5))
def test_boxes_come_back_as_they_went(found: list[tuple[tuple[float, float, float, float], str, float]]) -> None:
    size = (100, 90)
    garments = [garment(c, name, Box(x, y, x + w, y + h)) for (x, y, w, h), name, c in found]
    names, lines = label_lines(garments, size, 0.3)
    sent = json.loads(json.dumps({"annotationFile": "\n".join(lines), "labelmap": dict(enumerate(names))}))
    expected = [
        (g.class_name, g.box.clip(*size)) for g in garments if (g.confidence or 0) >= 0.3 and g.box.clip(*size).area > 0
    ]
    assert [name for name, _ in boxes_of(sent, size)] == [name for name, _ in expected]
    for (_, got), (_, box) in zip(boxes_of(sent, size), expected, strict=True):
        assert got == pytest.approx(box, abs=1e-3)
    assert all(re.fullmatch(r"\d( [01]\.\d{6}){4}", line) for line in lines)


def test_the_temporary_copies_are_gone(
    server: RoboflowServer, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = settings_for(server)
    server.faults = {"upload": [None, (400, {"message": "no"})]}
    upload(planned(dataset, tmp_path / "store", config), tmp_path / "store", config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "store"]
