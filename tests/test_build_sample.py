"""The photos that a conversion of models is judged on: which, and how they are cut."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conftest import TINY

from fashionrec.catalogue.build.sample import Sample
from fashionrec.config import Config, load_config
from fashionrec.models.bundle import Bundle
from fashionrec.products.tables import ProductRow


def test_the_sample_prefers_products_with_several_photos(config: Config) -> None:
    rows = [ProductRow(f"{n}.jpg", Path(), f"single{n}") for n in range(500)]
    rows += [ProductRow(f"m{n}.jpg", Path(), f"several{n // 4}") for n in range(80)]

    embedder = Bundle.open(TINY / "embedder")

    def chosen(rows: Sequence[ProductRow]) -> list[str]:
        return [row.product_id for row in Sample(rows, None, embedder, config).chosen()]

    found = chosen(rows)
    assert len(found) <= 128
    assert sum(name.startswith("several") for name in found) == 60
    assert sum(name.startswith("single") for name in found) >= 50
    assert chosen(rows[:7]) == [row.product_id for row in rows[:7]]


def test_the_sample_is_cut_as_a_build_cuts_and_a_photos_first_garment_is_its_product(photos: Path) -> None:
    names = ("red-blue.jpg", "gone.jpg", "green.jpg")
    rows = [ProductRow(name, photos, name[:3]) for name in names]
    config = load_config(sets=["build.workers=1"], env={}).config
    sample = Sample(rows, Bundle.open(TINY / "detector"), Bundle.open(TINY / "embedder"), config)
    assert sample.paths() == [photos / name for name in names]
    crops = sample.crops
    assert crops.products == ["red", None, "gre"]  # two garments of the first photo, and all of the last
    assert crops.photos == [str(photos / name) for name in ("red-blue.jpg", "red-blue.jpg", "green.jpg")]
    colours = [picture.resize((1, 1)).getpixel((0, 0)) for picture in crops.pictures]
    assert [max(range(3), key=lambda n: colour[n]) for colour in colours][2] == 1
    assert sorted(max(range(3), key=lambda n: colour[n]) for colour in colours) == [0, 1, 2]
    assert sample.crops is crops
