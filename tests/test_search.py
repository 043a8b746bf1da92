"""Searching: photo and text, one hit per product, soft classes, filters, answers as documents and
pages.
"""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import keeps_its_contract, two_halves

from fashionrec import Catalogue
from fashionrec.captioner.schema import QueryDescription
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.config import Config, load_config
from fashionrec.errors import CatalogueError, ImageError, UsageError
from fashionrec.search.render.page import price, safe_url

Build = Callable[..., BuildReport]


def configured(*sets: str) -> Config:
    return load_config(sets=sets, env={}).config


def products(catalogue: Catalogue, photo: Path, **options: object) -> list[str]:
    (found,) = catalogue.search(photo, garment="0", **options).garments  # type: ignore[arg-type]
    return [hit.item.product_id for hit in found.hits]


def test_the_photo_itself_comes_first(catalogue: Path, photos: Path) -> None:
    with Catalogue.open(catalogue) as opened:
        for photo in sorted(photos.iterdir()):
            answer = opened.search(photo, k=3)
            assert len(answer.garments) == (2 if photo.stem in ("red-blue", "orange-navy") else 1)
            for found in answer.garments:
                assert found.hits[0].item.product_id == photo.name
                assert found.hits[0].score == pytest.approx(1, abs=1e-4)
                assert [hit.rank for hit in found.hits] == [1, 2, 3]
                assert [h.score for h in found.hits] == sorted((h.score for h in found.hits), reverse=True)


def test_where_nothing_is_detected_the_whole_photo_is_searched_and_said(catalogue: Path, photos: Path) -> None:
    with Catalogue.open(catalogue) as opened:
        answer = opened.search(photos / "green.jpg")
        (found,) = answer.garments
        assert found.garment.whole_photo
        assert found.garment.box == (0, 0, 120, 90)
        assert "whole photo" in answer.notes[0]


@pytest.mark.parametrize(
    ("which", "classes"), [("all", ["top", "pants"]), ("pants", ["pants"]), ("1", ["pants"]), ("4", ["top"])]
)
def test_one_garment_can_be_chosen(catalogue: Path, photos: Path, which: str, classes: list[str]) -> None:
    with Catalogue.open(catalogue) as opened:
        if which == "4":
            which = "top"
        answer = opened.search(photos / "red-blue.jpg", garment=which)
        assert sorted(f.garment.class_name or "" for f in answer.garments) == sorted(classes)
        assert len(answer.results[0].seen) == 2


@pytest.mark.parametrize("which", ["dress", "7", "hat"])
def test_a_garment_that_is_not_there_is_said_with_what_is(catalogue: Path, photos: Path, which: str) -> None:
    with Catalogue.open(catalogue) as opened, pytest.raises(UsageError) as caught:
        opened.search(photos / "red-blue.jpg", garment=which)
    assert "top" in caught.value.hint


def test_classes_are_preferred_softly_and_never_empty_the_answer(catalogue: Path, photos: Path) -> None:
    with Catalogue.open(catalogue, configured("query.same_class=0.5")) as opened:
        answer = opened.search(photos / "red-white.jpg", k=10)
        hits = answer.garments[0].hits
        assert {hit.item.class_name for hit in hits[:3]} <= {"top", None}
        assert len(hits) == 6  # every product is there, one hit each
        assert len({hit.item.product_id for hit in hits}) == 6


def test_unavailable_products_are_hidden_by_setting(photos: Path, build: Build, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(
        "image,product_id,availability\n"
        "photos/red-white.jpg,sold,out_of_stock\nphotos/red-blue.jpg,there,in_stock\nphotos/green.jpg,unknown,\n"
    )
    build(tmp_path / "p.csv", tmp_path / "c")
    with Catalogue.open(tmp_path / "c") as opened:
        assert "sold" not in products(opened, photos / "red-white.jpg")
    with Catalogue.open(tmp_path / "c", configured("query.hide_unavailable=false")) as opened:
        assert products(opened, photos / "red-white.jpg")[0] == "sold"


def test_min_score_cuts_and_k_is_full_when_products_exist(build: Build, tmp_path: Path) -> None:
    for n in range(90):
        two_halves(tmp_path / "p" / f"{n}.png", f"rgb(255,{n},{n})", "white")
    rows = [f"p/{n}.png,{'same' if n < 70 else n},{'zebra' if n in (0, 89) else ''}\n" for n in range(90)]
    (tmp_path / "t.csv").write_text("image,product_id,title\n" + "".join(rows))
    build(tmp_path / "t.csv", tmp_path / "c")
    with Catalogue.open(tmp_path / "c") as opened:
        # 70 of the nearest are one product: the search must widen to fill the answer
        assert len(products(opened, tmp_path / "p" / "0.png", k=10)) == 10
        assert len(products(opened, tmp_path / "p" / "0.png", k=100)) == 21
        # of the two that hold the word one at least is not among the nearest pictures
        few, all_ = (opened.search(text="zebra", k=k, lexical_weight=0.9).garments[0].hits for k in (2, 30))
        assert {hit.item.product_id for hit in few} == {"same", "89"}
        assert [hit.cosine for hit in few] == pytest.approx([hit.cosine for hit in all_[:2]], abs=1e-6)
        assert [hit.score for hit in few] == pytest.approx([0.9 + 0.1 * (hit.cosine or 0) for hit in few])
    with Catalogue.open(tmp_path / "c", configured("query.min_score=1.1")) as opened:
        assert products(opened, tmp_path / "p" / "0.png") == []


def test_text_finds_by_the_encoder_and_by_words(photos: Path, build: Build, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(
        "image,product_id,title\n"
        "photos/red-white.jpg,shirt,화이트 셔츠와 반바지\n"
        "photos/green.jpg,lawn,a patch of grass\n"
        "photos/white-blue.jpg,jeans,jeans\n",
        encoding="utf-8",
    )
    build(tmp_path / "p.csv", tmp_path / "c")
    with Catalogue.open(tmp_path / "c") as opened:
        for text, best in {"green": "lawn", "blue": "jeans", "셔츠": "shirt", "grass": "lawn", "바지": "shirt"}.items():
            answer = opened.search_text(text, k=3)
            assert answer.garments[0].hits[0].item.product_id == best, text
        with pytest.raises(UsageError):
            opened.search_text("  ")
        long = opened.search_text("red " * 30)
        assert "24 tokens" in long.notes[0]


def test_captions_given_at_query_time_are_fused(catalogue: Path, photos: Path) -> None:
    config = configured("query.caption_weight=0.5")
    seen = []

    def describe(crops: object, vectors: np.ndarray, classes: object) -> list[QueryDescription | None]:
        seen.append((len(vectors), classes))
        return [QueryDescription("a red top", "red", {"category": "top", "color": "red"})]

    with Catalogue.open(catalogue, config) as opened:
        answer = opened.search(photos / "red-white.jpg", describe=describe)
    assert answer.garments[0].garment.caption == "a red top"
    assert seen == [(1, ["top"])]


def test_an_unreadable_photo_is_an_image_error(catalogue: Path, tmp_path: Path) -> None:
    with Catalogue.open(catalogue) as opened, pytest.raises(ImageError):
        opened.search(tmp_path / "none.jpg")


def test_threads_on_one_open_catalogue_give_identical_answers(catalogue: Path, photos: Path) -> None:
    paths = sorted(photos.iterdir()) * 4
    with Catalogue.open(catalogue) as opened:

        def ask(path: Path) -> list[object]:
            return opened.search(path).to_dict()["garments"]  # type: ignore[no-any-return]

        alone = [ask(path) for path in paths]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, paths)) == alone


def test_the_json_answer_keeps_its_contract(photos: Path, build: Build, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("image,product_id,price\nphotos/red-white.jpg,shirt,39000\n")
    build(tmp_path / "p.csv", tmp_path / "c")
    with Catalogue.open(tmp_path / "c") as opened:
        document = opened.search(photos / "red-white.jpg").to_dict()
    keeps_its_contract("query", document)
    hit = document["garments"][0]["hits"][0]
    assert hit["metadata"] == {"price": 39000}
    assert hit["image"] == "photos/red-white.jpg"
    assert document["garments"][0]["box"] == pytest.approx([0, 0, 60, 90], abs=1)


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [
            value or "" for name, value in attributes if name in ("src", "srcset", "data", "action", "poster")
        ]


def test_the_page_is_one_file_that_asks_nobody_and_escapes_what_products_say(
    photos: Path, build: Build, tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text(
        "image,product_id,title,price,currency,url\n"
        "photos/red-white.jpg,<b>x</b>,<script>alert(1)</script>,39000,KRW,javascript:alert(1)\n"
        "photos/red-blue.jpg,y,fine,12.5,USD,https://shop.example/y\n"
    )
    build(tmp_path / "p.csv", tmp_path / "c")
    with Catalogue.open(tmp_path / "c") as opened:
        page = opened.search(photos / "red-white.jpg").to_html()
    found = Links()
    found.feed(page)
    assert "script" not in found.tags
    assert found.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in found.sources)
    assert not re.search(r"@import|url\(", page)
    assert "javascript:" not in page
    assert "2 products, 3 garments searched" in page
    assert "&lt;script&gt;" in page
    assert "₩39,000" in page
    assert "$12.50" in page
    assert 'href="https://shop.example/y"' in page


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"price": 39000, "currency": "KRW"}, "₩39,000"),
        ({"price": 12.5, "currency": "usd"}, "$12.50"),
        ({"price": 5, "currency": "CHF"}, "5 CHF"),
        ({"price": 5}, "5"),
        ({"price": "ask us"}, "ask us"),
        ({}, ""),
    ],
)
def test_prices_as_shoppers_read_them(metadata: dict[str, object], text: str) -> None:
    assert price(metadata) == text


def test_only_web_links_are_followed() -> None:
    assert safe_url("https://a.example") == "https://a.example"
    assert safe_url("javascript:alert(1)") is None
    assert safe_url("file:///etc/passwd") is None
    assert safe_url(None) is None


def test_a_catalogue_copied_elsewhere_answers_alike_and_needs_nothing_of_its_old_place(
    catalogue: Path, photos: Path, tmp_path: Path
) -> None:
    import shutil

    with Catalogue.open(catalogue) as opened:
        before = opened.search(photos / "red-blue.jpg").to_dict()["garments"]
    shutil.copytree(catalogue, tmp_path / "elsewhere")
    shutil.rmtree(catalogue)
    with Catalogue.open(tmp_path / "elsewhere") as opened:
        assert opened.search(photos / "red-blue.jpg").to_dict()["garments"] == before


def test_a_truncated_bundle_inside_is_one_clear_error(catalogue: Path) -> None:
    graph = next(catalogue.glob("bundles/embedder-*/image.onnx"))
    graph.write_bytes(graph.read_bytes()[:-10])
    with pytest.raises(CatalogueError, match="damaged"):
        Catalogue.open(catalogue)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts what a process has open, by Linux's own list")
@pytest.mark.parametrize("damage", ["missing", "another model"])
def test_a_catalogue_that_cannot_be_opened_leaves_nothing_open(catalogue: Path, damage: str) -> None:
    with Catalogue.open(catalogue):
        pass
    if damage == "missing":
        next(catalogue.glob("segments/*-image/vectors.faiss")).unlink()
    else:
        (model,) = catalogue.glob("bundles/embedder-*/bundle.json")
        model.write_text(model.read_text().replace('"sha256": "', '"sha256": "0', 1))
    before = opened_files()
    with pytest.raises(CatalogueError) as caught:
        Catalogue.open(catalogue)
    assert opened_files() == before
    assert str(catalogue) in str(caught.value)  # the error, and what its traceback holds, is still here


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="asks what a process has mapped, by Linux's own list")
def test_a_closed_catalogue_has_nothing_open_or_mapped(catalogue: Path, photos: Path) -> None:
    before = opened_files()
    with Catalogue.open(catalogue) as opened:
        opened.search(photos / "red-blue.jpg")
        assert len(opened.captions) == 0
        assert f"{catalogue}/segments/" in Path("/proc/self/maps").read_text()
    assert opened_files() == before
    assert str(catalogue) not in Path("/proc/self/maps").read_text()
    assert opened.closed


def opened_files() -> list[str]:
    return sorted(str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


def test_a_closed_catalogue_is_one_clear_error(catalogue: Path, photos: Path) -> None:
    with Catalogue.open(catalogue) as opened:
        opened.search(photos / "green.jpg")
    for ask in (lambda: opened.search(photos / "green.jpg"), lambda: opened.search_text("red")):
        with pytest.raises(CatalogueError, match="is closed") as caught:
            ask()
        assert "open it again" in caught.value.hint
