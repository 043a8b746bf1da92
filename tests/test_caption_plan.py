"""Test what a run of captions plans to ask: each garment once, one of several that are the same,
and none that is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captioners import Echo
from conftest import TINY
from test_ranking import Counted

from fashionrec import Catalogue
from fashionrec.captioner.cache import Place
from fashionrec.captioner.job.caches import Caches
from fashionrec.captioner.job.garments import Plan, garments, make_plan
from fashionrec.config import Config, load_config
from fashionrec.models.bundle import Bundle
from fashionrec.store import generations
from fashionrec.store.content import CaptionRow, GarmentRow, PhotoRow
from fashionrec.store.manifest import CatalogueSettings, SegmentEntry
from fashionrec.store.writer import GenerationWriter
from fashionrec.types import Box

#: Of the first the second shows 0.95, the third nothing; the fourth is the first again, of another
#: class.
BOXES = (Box(0, 0, 100, 100), Box(0, 0, 95, 100), Box(200, 0, 300, 100), Box(0, 0, 100, 100))
CLASSES = ("top", "top", "top", "pants")
PHOTOS = 40


@pytest.fixture
def shop(tmp_path: Path, config: Config) -> Iterator[Catalogue]:
    """Photos of four garments each, of which the third of every tenth photo has a caption. Two
    entries show each photo: the second one's items are written first for odd photos.
    """
    bundle = Bundle.open(TINY / "embedder")
    vectors = np.eye(48, dtype=np.float32)[np.arange(PHOTOS * 4) % 48]
    root = tmp_path / "c"
    with generations.writer_lock(root), GenerationWriter(root, config.index) as writer:
        segment = writer.write_segment("image", vectors, SegmentEntry("image", len(vectors), 48, bundle.fingerprint))
        (root / "segments" / segment / generations.THUMBNAILS).write_bytes(b"\xff\xd8\xff")
        for n in range(PHOTOS):
            photo = f"{n:064x}"
            rows = tuple(
                GarmentRow(m, CLASSES[m], 0.9, BOXES[m], False, segment, n * 4 + m, 0, 3) for m in range(len(BOXES))
            )
            numbers = writer.items.add_photo(PhotoRow(photo, 300, 100, "k", rows))
            entries = [writer.items.add_entry(f"{n}.jpg", "", f"p{n}{m}", photo, {"title": "x"}) for m in "ab"]
            for entry in entries[:: -1 if n % 2 else 1]:
                for m, number in enumerate(numbers):
                    writer.items.add_item(f"{entry}-{m}", entry, number, f"p{n}", m == 3, "x")
            if n % 10 == 0:
                writer.items.add_caption(numbers[2], CaptionRow("A top", "", {}, "a top", "echo"))
        settings = CatalogueSettings(thumbnail=config.build.thumbnail, crop=config.crop, build_key="k")
        writer.commit("test", {}, bundles=[bundle], settings=settings)
    with Catalogue.open(root) as catalogue:
        yield catalogue


def plan_of(catalogue: Catalogue, **options: Any) -> Plan:
    with Caches(None, None) as caches:
        return make_plan(catalogue, caches, Echo(load_config(env={}).config.captioner), **options)


def test_each_garment_is_asked_once(shop: Catalogue) -> None:
    plan = plan_of(shop)
    asked = [(stored.photo, stored.image_at[1] % 4) for stored in garments(shop, plan.todo)]
    without = [(f"{n:064x}", m) for n in range(PHOTOS) for m in (0, 2, 3) if not (m == 2 and n % 10 == 0)]
    assert asked == without
    assert (plan.missing, plan.captioned, plan.reused) == (PHOTOS * 3 - 4, 4, 0)
    some = plan_of(shop, limit=5)
    assert list(some.todo) == list(plan.todo)[:5]
    assert some.missing == plan.missing


@pytest.mark.parametrize(
    ("under_way", "left"),
    [
        (lambda place: place.box == BOXES[0], 36),  # the second is the first: it is not asked in its place
        (lambda place: place.class_name == "pants", 36 + 40),
        (lambda place: True, 0),
    ],
)
def test_what_is_under_way_is_not_asked(shop: Catalogue, under_way: Callable[[Place], bool], left: int) -> None:
    plan = plan_of(shop, under_way=under_way)
    assert (plan.missing, len(plan.todo), plan.captioned) == (left, left, 4)


def test_a_plan_reads_no_whole_item_and_keeps_a_number_for_each(shop: Catalogue) -> None:
    items = shop.items = Counted(shop.generation.items_path, shop.generation.changes_path)
    plan = plan_of(shop)
    assert items.whole == 0
    assert plan.todo.itemsize * len(plan.todo) == 8 * plan.missing
    assert len(list(garments(shop, plan.todo))) == items.whole == plan.missing


def test_items_spread_over_all_are_read(shop: Catalogue) -> None:
    """By hand: of 240 items of a product's own: 8 a photo, of which every fourth is
    worn with one.
    """
    for count, each in ((240, 1), (239, 2), (100, 3), (7, 35), (1, 240), (1000, 1)):
        own = [number for number in range(1, PHOTOS * 8 + 1) if number % 4]
        assert [stored.item_no for stored in shop.items.spread(count)] == own[::each]
