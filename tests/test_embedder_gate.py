"""The gate of an encoder in another precision: its figures and its words, by hand; and the pairs
that a table gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashionrec.common.files import sha256_file
from fashionrec.embedder.training.gate import Figures, Tolerance, compare, judge
from fashionrec.errors import DataError, ImageError, Refused

TOLERANCE = Tolerance(points=0.5, overlap=0.96)
GOOD = Figures(
    pictures=200, overlap=0.99, cosine_mean=0.998765, cosine_least=0.9, labelled=0, mrr_source=None, mrr=None
)
LABELLED = replace(GOOD, labelled=60, mrr_source=0.8, mrr=0.796)


def test_what_was_measured_in_a_sentence_and_as_a_document() -> None:
    assert GOOD.line("int8") == "int8: 99.0% of the 10 nearest are the same on 200 crops, cosine 0.99877"
    assert LABELLED.line("fp16") == (
        "fp16: 99.0% of the 10 nearest are the same on 200 crops, cosine 0.99877, MRR 0.8000 to 0.7960 with 60 labelled crops"
    )
    assert GOOD.points_lost is None
    assert LABELLED.points_lost == pytest.approx(0.4)
    assert GOOD.to_dict() == {
        "pictures": 200, "overlap": 0.99, "cosine_mean": 0.998765, "cosine_least": 0.9, "labelled": 0, "mrr_source": None,
        "mrr": None, "points_lost": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("figures", "wrong"),
    [
        (GOOD, None),
        (replace(GOOD, overlap=0.96, pictures=20), None),
        (replace(GOOD, pictures=19), "19 crops are too few to decide"),
        (replace(GOOD, overlap=0.959), "95.9% of the 10 nearest are the same (minimum 96.0%)"),
        (replace(GOOD, overlap=float("nan")), "nan% of the 10 nearest are the same (minimum 96.0%)"),
        (LABELLED, None),
        (replace(LABELLED, mrr=0.9), None),
        (replace(LABELLED, overlap=0.921), None),
        (replace(LABELLED, overlap=0.919), "91.9% of the 10 nearest are the same (minimum 92.0%)"),
        (replace(LABELLED, mrr=0.794), "it loses 0.60 points of MRR (tolerance 0.5) on 60 crops"),
    ],
)
def test_when_a_precision_is_refused(figures: Figures, wrong: str | None) -> None:
    if wrong is None:
        judge("int8", figures, TOLERANCE)
        return
    with pytest.raises(Refused) as caught:
        judge("int8", figures, TOLERANCE)
    assert str(caught.value) == f"the encoder in int8 does not match fp32: {wrong}"
    assert caught.value.hint == "use fp32"


def at(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_figures_of_few_pictures_by_hand() -> None:
    """By hand: of three pictures two are nearest to each: always the same.

    Turned by 60 degrees a cosine is a half.
    """
    found = compare(at(0, 10, 50), at(0, 10, 110))
    assert (found.pictures, found.overlap, found.labelled, found.mrr) == (3, 1.0, 0, None)
    assert (found.cosine_mean, found.cosine_least) == (pytest.approx(2.5 / 3), pytest.approx(0.5))
    one = compare(at(0), at(0))
    assert (one.pictures, one.overlap, one.cosine_mean) == (1, 0.0, pytest.approx(1.0))
    assert compare(at(), at()) == Figures(0, 0.0, 0.0, 1.0, 0, None, None)


def test_the_nearest_ten_that_are_the_same() -> None:
    """Twelve on a line: each has eleven others, of which the farthest is left out; the last one
    moves to the front.
    """
    line = at(*(5 * n for n in range(12)))
    moved = at(*(5 * n for n in range(11)), -5)
    # those before the middle lose their farthest (the last) and gain it as a neighbour for the one
    # farthest then
    same = compare(line, line)
    assert same.overlap == 1.0
    source = [{m for m in range(12) if m != n} - {0 if 11 - n < n else 11} for n in range(12)]
    places = [*range(11), -1]
    other = [
        set(sorted((m for m in range(12) if m != n), key=lambda m: (abs(places[m] - places[n]), m))[:10])
        for n in range(12)
    ]
    expected = np.mean([len(a & b) / 10 for a, b in zip(source, other, strict=True)])
    assert compare(line, moved).overlap == pytest.approx(expected)
    assert expected < 1


def labelled(count: int) -> tuple[list[str | None], list[str]]:
    """Pairs of a product in two photos, and as many pictures of nothing that is known."""
    products: list[str | None] = [f"p{n // 2}" for n in range(count)]
    return [*products, None, None], [f"photo{n}" for n in range(count + 2)]


def test_how_well_pictures_find_another_of_their_product() -> None:
    """Each of 25 pairs lies 1 degree apart, pairs 7 degrees: all are found first.

    Turned by half, a stranger is nearer.
    """
    degrees = [7 * (n // 2) + n % 2 for n in range(50)]
    near, far = at(*degrees, 300, 310), at(*(7 * (n // 2) + 6 * (n % 2) for n in range(50)), 300, 310)
    products, photos = labelled(50)
    found = compare(near, far, products=products, photos=photos)
    assert (found.labelled, found.mrr_source) == (50, 1.0)
    # 6 degrees apart and 1 from the next pair: all but the first and the last have one that is
    # nearer
    assert found.mrr == pytest.approx((2 * 1 + 48 / 2) / 50)
    fewer = compare(near[2:], far[2:], products=products[2:], photos=photos[2:])
    assert (fewer.labelled, fewer.mrr, fewer.mrr_source) == (48, None, None)
    together = ["a"] * 52  # of one photo: nothing can be asked
    assert compare(near, far, products=products, photos=together).labelled == 0


# -- pairs of a table


def pairs(table: Path, crops: dict[int, Any], **given: Any) -> Any:
    from fashionrec.embedder.training.pairs import training_pairs

    asked: list[tuple[int, str, str | None]] = []

    def cut(photos: Sequence[tuple[int, Path, str | None]]) -> Iterable[tuple[int, Any]]:
        asked.extend((n, path.name, name) for n, path, name in photos)
        yield from ((n, crops.get(n)) for n, _, _ in photos)

    return (*training_pairs(table, cut, ["kind"], **given), asked)


@pytest.mark.train
def test_a_tables_rows_are_pairs_of_a_crop_and_its_caption(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    table = tmp_path / "t.csv"
    table.write_text(
        "image,product_id,kind,title,caption,caption_en\n"
        "a.jpg,A,top,Title,Caption,English\n"
        "b.jpg,B,hat,Title,Caption,\n"
        "c.jpg,C,,Title,,\n"
        "d.jpg,D,top,,,\n"
        "e.jpg,E,pants,Title,,\n"
        "f.jpg,F,pants,Last,,\n"
    )
    crops = {0: Image.new("RGB", (512, 128)), 1: None, 2: ImageError("no", reason="missing"), 4: None}
    crops[5] = Image.new("RGB", (10, 256), "red")
    ticks: list[tuple[int, int]] = []
    found, record, asked = pairs(table, crops, progress=lambda *done: ticks.append(done))
    assert asked == [
        (0, "a.jpg", "top"), (1, "b.jpg", None), (2, "c.jpg", None), (4, "e.jpg", "pants"), (5, "f.jpg", "pants"),
    ]  # fmt: skip
    assert [(pair.caption, pair.product_id, pair.load().size) for pair in found] == [
        ("English", "A", (256, 64)),
        ("Last", "F", (10, 256)),
    ]
    assert record == {"path": str(table), "fingerprint": sha256_file(table), "rows": 6, "pairs": 2, "failed": 1}
    assert ticks == [(n, 5) for n in range(1, 6)]


@pytest.mark.train
def test_a_table_that_gives_no_pairs_is_told(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    table = tmp_path / "t.csv"
    table.write_text("image,product_id,color\na.jpg,A,red\n")
    with pytest.raises(DataError) as caught:
        pairs(table, {})
    assert str(caught.value) == f"{table} has no captions"
    assert caught.value.hint == "a column caption_en, caption, text, description, title"
    table.write_text("image,product_id,text\na.jpg,A,red\nb.jpg,B,\n")
    with pytest.raises(DataError) as caught:
        pairs(table, {})
    assert str(caught.value) == f"none of 2 rows of {table} gave a crop with a caption"
