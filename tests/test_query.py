"""query: what can be asked, and in what shapes it answers."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, two_halves
from PIL import Image
from systems import posix_only

from fashionrec import Catalogue
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.config import Config, load_config
from fashionrec.errors import ImageError, UsageError
from fashionrec.search.query import Query
from fashionrec.search.ranking import is_unavailable
from fashionrec.search.search import search
from fashionrec.search.words import Words, parse_words
from fashionrec.types import Box

ROWS: list[dict[str, Any]] = [
    {"image": "photos/red-blue.jpg", "product_id": "a", "category": "top", "title": "=1+1", "price": 10, "brand": "A"},
    {
        "image": "photos/red-white.jpg",
        "product_id": "b",
        "category": "top",
        "title": "<script>alert(1)</script>",
        "price": 20,
    },
    {
        "image": "photos/green.jpg",
        "product_id": "c",
        "title": "초록 치마",
        "price": 30,
        "url": "https://shop.example/c",
    },
    {"image": "photos/grey.jpg", "product_id": "d", "title": "grey thing", "price": 40, "availability": "sold out"},
    {"image": "photos/red-blue.jpg", "product_id": "e", "category": "pants", "title": "blue pants", "price": 50},
]


@pytest.fixture
def shop(photos: Path, build: Callable[..., BuildReport], tmp_path: Path) -> Path:
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert build(table, tmp_path / "shop").failures == []
    return tmp_path / "shop"


def products(answer: Any, garment: int = 0) -> list[str]:
    return [hit.item.product_id for hit in answer.garments[garment].hits]


# --- what can be asked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in red", Words("in red", 1.0)),
        ("floral:-0.4", Words("floral", -0.4)),
        ("a: b :2", Words("a: b", 2.0)),
        ("size:", Words("size:", 1.0)),
        ("10:30", Words("10", 10.0)),
    ],
)
def test_words_with_weights(text: str, expected: Words) -> None:
    if text == "10:30":
        with pytest.raises(UsageError, match=r"outside -10\.\.10"):
            parse_words(text)
        return
    assert parse_words(text) == expected


@pytest.mark.parametrize("text", ["", "   ", "x:0", "x:1e9", "x:-11"])
def test_words_that_ask_nothing(text: str) -> None:
    if text == "x:1e9":
        assert parse_words(text).text == text  # no number as weights are written
        return
    with pytest.raises(UsageError):
        parse_words(text)


def test_words_move_a_photo_and_minus_words_move_it_back(shop: Path, photos: Path) -> None:
    with Catalogue.open(shop) as catalogue:
        plain = catalogue.search(photos / "green.jpg")
        redder = catalogue.search(photos / "green.jpg", text="red:3")
        away = catalogue.search(photos / "green.jpg", text="green:-3")
        assert products(plain)[0] == "c"
        assert products(redder)[0] != "c"
        score = {
            name: {h.item.product_id: h.score for h in one.garments[0].hits}
            for name, one in (("p", plain), ("a", away))
        }
        assert score["a"]["c"] < score["p"]["c"]
        assert np.linalg.norm(redder.results[0].vectors[0]) == pytest.approx(1.0, abs=1e-5)


def test_korean_text_says_which_way_it_went_and_prefers_the_class_it_names(shop: Path) -> None:
    with Catalogue.open(shop) as catalogue:
        answer = catalogue.search(text="빨간 바지 루이비통")
        assert answer.results[0].classes == ("pants",)
        assert any("red pants" in note and "lexicon" in note for note in answer.notes)
        assert any("루이비통" in note for note in answer.notes)
        hits = {hit.item.product_id: hit for hit in answer.garments[0].hits}
        assert "class" not in hits["e"].parts
        assert hits["a"].parts["class"] < 0
        lost = catalogue.search(text="치마으로 가방")
        assert products(lost)[0] == "c"  # by its title
        unknown = catalogue.search(text="가방")
        assert any("searched by full text only" in note for note in unknown.notes)


def test_items_of_the_catalogue_as_the_question(shop: Path) -> None:
    with Catalogue.open(shop) as catalogue:
        answer = catalogue.search(like="a")
        assert "a" not in products(answer)
        assert products(answer)[0] == "b"
        item = catalogue.items.of_product("a")[0].item.item_id
        assert products(catalogue.search(like=item)) == products(answer)
        less = catalogue.search(like="a", unlike="b")
        assert "b" not in products(less)
        with pytest.raises(UsageError, match="no item or product 'nobody'"):
            catalogue.search(like="nobody")


def test_a_box_by_hand(shop: Path, photos: Path) -> None:
    with Catalogue.open(shop) as catalogue:
        answer = catalogue.search(photos / "red-blue.jpg", box=Box(-5, -5, 40, 1000))
        width, height = answer.results[0].width, answer.results[0].height
        assert answer.garments[0].garment.box == Box(0, 0, 40, height)
        assert answer.garments[0].garment.class_name is None
        assert not answer.garments[0].garment.whole_photo
        for box in (Box(10, 10, 10, 20), Box(width or 0, 0, 10_000, 10), Box(20, 20, 10, 30)):
            with pytest.raises(UsageError, match="is empty or outside"):
                catalogue.search(photos / "red-blue.jpg", box=box)


def test_a_filter_is_applied_within_the_search(shop: Path, photos: Path) -> None:
    with Catalogue.open(shop) as catalogue:
        for where, expected in {
            "price >= 30": {"c", "e"},
            "brand = 'a'": {"a"},
            "brand is null and price < 100": {"b", "c", "e"},
            "price > 1000": set(),
        }.items():
            answer = catalogue.search(photos / "red-blue.jpg", where=where, garment="top")
            assert set(products(answer)) == expected, where
            assert set(products(catalogue.search(text="red", where=where))) == expected


def test_sold_out_and_not_yet_released(shop: Path, photos: Path) -> None:
    with Catalogue.open(shop) as catalogue:
        assert "d" not in products(catalogue.search(photos / "grey.jpg"))
        assert products(catalogue.search(photos / "grey.jpg", hide_unavailable=False))[0] == "d"
        (stored,) = catalogue.items.of_product("c")
        stored.item.metadata["release_date"] = "2026-03-01T00:00"
        assert is_unavailable(stored, "2026-02-28")
        assert not is_unavailable(stored, "2026-03-01")
        stored.item.metadata["release_date"] = "soon"
        assert not is_unavailable(stored)


def test_diversity_brings_what_is_different(tmp_path: Path, build: Callable[..., BuildReport]) -> None:
    for n in range(6):
        Image.new("RGB", (60, 60), (255 - n, 0, 0)).save(_made(tmp_path / "p" / f"red{n}.png"))
    for n, colour in enumerate([(0, 255, 0), (0, 0, 255)]):
        image = Image.new("RGB", (60, 60), colour)
        image.paste((255, 0, 0), (0, 0, 60, 20))
        image.save(tmp_path / "p" / f"other{n}.png")
    build(tmp_path / "p", tmp_path / "c", detect=False)
    with Catalogue.open(tmp_path / "c") as catalogue:
        ask = tmp_path / "p" / "red0.png"
        near = products(catalogue.search(ask, k=3))
        wide = products(catalogue.search(ask, k=3, diversity=0.7))
        assert sum("other" in one for one in near) == 0
        assert sum("other" in one for one in wide) == 2
        assert wide[0] == near[0]


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_many_photos_are_answered_as_each_alone(shop: Path, photos: Path) -> None:
    names = sorted(photos.iterdir()) * 2
    (photos / "broken.jpg").write_bytes(b"no")
    with Catalogue.open(shop) as catalogue:
        answers = catalogue.search([*names[:5], photos / "broken.jpg", *names[5:]]).outcomes
        assert isinstance(answers.pop(5), ImageError)
        for name, answer in zip(names, answers, strict=True):
            alone = catalogue.search(name)
            assert not isinstance(answer, UsageError)
            assert [products(answer, n) for n in range(len(answer.garments))] == [
                products(alone, n) for n in range(len(alone.garments))
            ]
            assert answer.timings_ms["embed"] > 0


@pytest.mark.parametrize("size", [(60, 40), (97, 61), (641, 427)])
def test_a_photo_of_the_catalogue_finds_itself(
    tmp_path: Path, build: Callable[..., BuildReport], size: tuple[int, int]
) -> None:
    photo = two_halves(tmp_path / "p" / "a.png", "red", "blue", size)
    build(tmp_path / "p", tmp_path / "c")
    with Catalogue.open(tmp_path / "c") as catalogue:
        answer = catalogue.search(photo, k=1)
        assert sorted(found.garment.name for found in answer.garments) == ["pants", "top"]
        for found in answer.garments:
            assert found.hits[0].score == pytest.approx(1.0, abs=1e-5)
            assert found.hits[0].item.box == found.garment.box


def test_what_goes_with_it(tmp_path: Path, build: Callable[..., BuildReport]) -> None:
    """Two who wear a dark red top wear dark blue pants; one in light red wears light blue ones."""
    for n, (left, right) in enumerate([("#d00000", "#0000c0"), ("#d40000", "#0000c4"), ("#ff2020", "#2020ff")]):
        two_halves(tmp_path / "p" / f"look{n}.png", left, right)
    two_halves(tmp_path / "p" / "alone.png", "#d00000", "gray")
    rows = [{"image": f"p/look{n}.png", "product_id": f"pants{n}", "category": "pants"} for n in range(3)]
    rows.append({"image": "p/alone.png", "product_id": "top", "category": "top"})
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(tmp_path / "t.jsonl", tmp_path / "c")
    with Catalogue.open(tmp_path / "c") as catalogue:
        answer = catalogue.search(tmp_path / "p" / "alone.png", garment="top", k=2, goes_with=True)
        (found,) = answer.results[0].goes_with or []
        assert {hit.item.product_id for hit in found.hits} <= {"pants0", "pants1", "pants2"}
        assert len(found.hits) == 2
        worn = catalogue.search(tmp_path / "p" / "look0.png", garment="pants", goes_with=True)
        (nothing,) = worn.results[0].goes_with or []
        assert [hit.item.product_id for hit in nothing.hits] == ["top"]  # the only top that is a product


# --- in what shapes it answers


def test_formats(cli: Callable[..., Result], shop: Path, photos: Path, tmp_path: Path) -> None:
    one = cli("query", photos / "red-blue.jpg", "--index", shop, "--json", "--explain")
    hit = one.document["garments"][0]["hits"][0]
    assert hit["score"] == pytest.approx(sum(hit["parts"].values()), abs=1e-5)
    many = cli("query", photos, "--index", shop, "--json")
    assert len(many.document["answers"]) == 6
    lines = cli("query", photos, "--index", shop, "--jsonl").out.splitlines()
    assert [json.loads(line)["photo"] for line in lines] == [answer["photo"] for answer in many.document["answers"]]
    table = cli("query", photos / "red-blue.jpg", "--index", shop, "--garment", "top", "--csv", "-").out
    rows = list(csv.DictReader(io.StringIO(table)))
    titles = {row["product_id"]: row["title"] for row in rows}
    assert titles["a"] == "'=1+1"
    assert [row["rank"] for row in rows] == [str(n + 1) for n in range(len(rows))]
    done = cli("query", photos / "red-blue.jpg", "--index", shop, "--xlsx", "a.xlsx", "--csv", "a.csv", "--save-crops", "crops",
               "--html", "a.html", "--goes-with")  # fmt: skip
    assert done.code == 0, done.err
    with zipfile.ZipFile(tmp_path / "a.xlsx") as book:
        assert any(name.startswith("xl/media/") for name in book.namelist())
        texts = book.read("xl/sharedStrings.xml").decode()
        assert "=1+1" in texts
        assert "<f>" not in book.read("xl/worksheets/sheet1.xml").decode()
    assert (tmp_path / "a.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    crops = sorted((tmp_path / "crops").iterdir())
    assert [path.name for path in crops] == ["000-red-blue-0-top.jpg", "000-red-blue-1-pants.jpg"]
    page = (tmp_path / "a.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "http-equiv" in page


def test_standard_input(cli: Callable[..., Result], shop: Path, photos: Path) -> None:
    one = cli("query", "-", "--index", shop, "--json", stdin=(photos / "green.jpg").read_bytes())
    assert one.document["photo"] is None
    assert one.document["garments"][0]["hits"][0]["product_id"] == "c"
    names = "\n".join(map(str, sorted(photos.iterdir())[:3]))
    several = cli("query", "-", "--index", shop, "--json", stdin=names.encode())
    assert (several.code, len(several.document["answers"])) == (0, 3)
    empty = cli("query", "-", "--index", shop, stdin=b"")
    assert (empty.code, "standard input is empty" in empty.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--where", "price <"], "expected a value before"),
        (["--where", "prise < 5"], "unknown column 'prise'"),
        (["--box", "1,2,3"], "--box needs 4 numbers"),
        (["--unlike", "a"], "--unlike needs --like"),
        (["--open"], "--open needs --html"),
    ],
)
def test_wrong_questions(cli: Callable[..., Result], shop: Path, photos: Path, words: list[str], error: str) -> None:
    photo = [] if "--unlike" in words else [photos / "green.jpg"]
    done = cli("query", *photo, "--index", shop, *([] if photo else ["--text", "red"]), *words)
    assert done.code == 2
    assert error in done.err
    if "--where" in words:
        assert "^" in done.err
        assert "hint:" in done.err


def test_a_folder_with_broken_photos_answers_the_others(
    cli: Callable[..., Result], shop: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "broken.jpg").write_bytes(b"no")
    done = cli("query", photos, "--index", shop, "--json")
    assert done.code == 0
    assert [failure["reason"] for failure in done.document["failures"]] == ["not-an-image"]
    assert "warning:" in done.err


def test_two_catalogues_side_by_side(
    cli: Callable[..., Result], shop: Path, photos: Path, tmp_path: Path, build: Callable[..., BuildReport]
) -> None:
    build(photos, tmp_path / "other")
    done = cli(
        "query",
        photos / "red-blue.jpg",
        "--index",
        shop,
        "--index",
        tmp_path / "other",
        "--json",
        "--html",
        "both.html",
    )
    assert done.code == 0, done.err
    (question,) = done.document["questions"]
    assert [garment["garment"] for garment in question["garments"]] == ["top", "pants"]
    assert question["garments"][0]["overlap_at_10"] == 0.0  # other product ids
    page = (tmp_path / "both.html").read_text()
    assert "overlap@10" in page
    same = cli("query", "--text", "red", "--index", shop, "--index", shop, "--json").document["questions"][0]
    assert same["garments"][0]["overlap_at_10"] == 1.0
    assert all(before == after for before, after in same["garments"][0]["ranks"].values())


def test_two_catalogues_are_asked_for_one_list_and_one_of_them_cannot_use_the_photo(
    cli: Callable[..., Result], shop: Path, photos: Path, tmp_path: Path, build: Callable[..., BuildReport]
) -> None:
    other = tmp_path / "whole"
    build(photos, other, detect=False)
    words = ("query", photos / "red-blue.jpg", "--garment", "top", "--text", "red", "--merge", "--json")
    done = cli(*words, "--index", shop, "--index", other)
    assert done.code == 0, done.err
    assert "warning: no top found in the photo" in done.err
    (question,) = done.document["questions"]
    alone = [cli(*words, "--index", root).document for root in (shop, other)]
    assert [[answer["text"], answer["garments"][0]["hits"]] for answer in question["answers"]] == [
        [answer["text"], answer["garments"][0]["hits"]] for answer in alone
    ]


def test_threads_on_one_catalogue_answer_alike(shop: Path, photos: Path, config: Config) -> None:
    from concurrent.futures import ThreadPoolExecutor

    names = sorted(photos.iterdir()) * 4
    with Catalogue.open(shop) as catalogue:

        def ask(name: Path) -> Any:
            answer = catalogue.search(name, where="price > 0")
            return [(h.item.item_id, round(h.score, 5)) for g in answer.garments for h in g.hits]

        alone = [ask(name) for name in names]
        for threads in (2, 8):
            with ThreadPoolExecutor(threads) as pool:
                assert list(pool.map(ask, names)) == alone


def test_words_beside_photos_that_cannot_be_used_tell_why(cli: Callable[..., Result], shop: Path, photos: Path) -> None:
    missing = cli("query", "none.jpg", "--text", "red", "--index", shop)
    assert missing.code == 2
    assert "no such photo: none.jpg" in missing.err
    absent = cli("query", photos / "green.jpg", "--garment", "99", "--text", "red", "--index", shop)
    assert absent.code == 2
    assert "99" in absent.err


@posix_only("signals")
def test_an_interrupt_ends_a_query_wherever_it_is(shop: Path, photos: Path) -> None:
    """Like production: an exception it became an ImportError within numpy's import, and a deadlock
    within a callback of the importer's.
    """
    words = [sys.executable, "-m", "fashionrec", "query", str(photos / "green.jpg"), "--index", str(shop), "--json"]
    ends = []
    for n in range(16):
        heeding = {
            "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        }  # tests may run in the background
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **heeding) as process:
            time.sleep(0.06 + 0.02 * n)
            process.send_signal(signal.SIGINT)
            out, told = process.communicate(timeout=60)
        # before that it is Python's own start that is interrupted
        in_python = told.startswith(("Fatal Python error: init_import_site", "Could not import runpy module"))
        started = process.returncode != -signal.SIGINT and not in_python
        if started and process.returncode:
            assert process.returncode == 130
            assert told.endswith("error: interrupted\n")  # after what it had said by then
            assert "Traceback" not in told
            assert "should not happen" not in told
            assert not out or json.loads(out)["garments"], "half an answer"
        elif started:
            assert json.loads(out)["garments"]
        ends.append(process.returncode)
    assert 130 in ends, ends


def test_a_photo_leaves_nothing_behind(cli: Callable[..., Result], shop: Path, photos: Path, tmp_path: Path) -> None:
    image = Image.open(photos / "green.jpg")
    exif = Image.Exif()
    exif[0x010E] = "SECRET-EXIF"
    exif.get_ifd(0x8825)[1] = "N"
    image.save(tmp_path / "mine.jpg", exif=exif)
    before = {path: path.read_bytes() for path in shop.rglob("*") if path.is_file()}
    cli("query", "mine.jpg", "--index", shop, "--html", "a.html", "--save-crops", "crops", "--xlsx", "a.xlsx")
    after = {path: path.read_bytes() for path in shop.rglob("*") if path.is_file()}
    assert after == before
    for path in [tmp_path / "a.html", tmp_path / "a.xlsx", *(tmp_path / "crops").iterdir()]:
        assert b"SECRET" not in path.read_bytes()
        if path.suffix == ".jpg":
            assert not Image.open(path).getexif()


def test_several_questions_become_one_list(cli: Callable[..., Result], shop: Path, photos: Path) -> None:
    one = cli("query", photos / "red-blue.jpg", photos / "green.jpg", "--index", shop, "--merge", "--json", "--explain")
    assert one.code == 0, one.err
    (garment,) = one.document["garments"]
    hits = garment["hits"]
    assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
    assert len({hit["product_id"] for hit in hits}) == len(hits)
    for hit in hits:
        assert hit["score"] == pytest.approx(sum(hit["parts"].values()), abs=1e-5)
        assert hit["score"] <= 1
        assert hit["match"] is None
    assert set(hits[0]["parts"]) <= {"1: red-blue.jpg, top", "2: red-blue.jpg, pants", "3: green.jpg"}
    words = cli("query", photos / "green.jpg", "--text", "red", "--index", shop, "--merge", "--json", "--explain")
    assert {name for hit in words.document["garments"][0]["hits"] for name in hit["parts"]} == {
        "1: green.jpg",
        "2: red",
    }
    same = cli("query", photos / "green.jpg", photos / "green.jpg", "--index", shop, "--merge", "--json").document
    alone = cli("query", photos / "green.jpg", "--index", shop, "--json").document
    for merged, plain in ((same, alone),):
        assert [hit["product_id"] for hit in merged["garments"][0]["hits"]] == [
            hit["product_id"] for hit in plain["garments"][0]["hits"]
        ]
    assert same["garments"][0]["hits"][0]["score"] == 1.0
    assert cli("query", photos / "green.jpg", "--merge", "--text", "red:-1", "--index", shop).code == 2
    assert cli("query", photos / "green.jpg", "--merge", "--goes-with", "--index", shop).code == 2


def test_ranks_instead_of_weights(shop: Path) -> None:
    with Catalogue.open(shop) as catalogue:
        weighted = catalogue.search(text="blue pants")
        ranked = catalogue.search(text="blue pants", fusion="rrf")
        assert products(weighted)[0] == products(ranked)[0] == "e"
        hit = ranked.garments[0].hits[0]
        assert hit.score == pytest.approx(sum(hit.parts.values()))
        assert 0 < hit.score <= 1
        assert hit.cosine == pytest.approx(weighted.garments[0].hits[0].cosine)


def test_the_measured_weight_of_captions_is_taken_where_nobody_set_another(
    cli: Callable[..., Result], shop: Path
) -> None:
    from fashionrec.store.measured import write_measured

    with Catalogue.open(shop) as catalogue:
        write_measured(
            shop, "caption_weight", catalogue.generation.name, catalogue.embedder_bundle.fingerprint, {"value": 0.8}
        )
        assert catalogue.search_text("red").query.caption_weight == 0.8
        assert catalogue.search(text="red", caption_weight=0.2).query.caption_weight == 0.2
    with Catalogue.open(shop, load_config(env={}, sets=["query.caption_weight=0.3"]).config) as catalogue:
        assert catalogue.search_text("red").query.caption_weight == 0.3
    assert cli("caption", "--index", shop, "--captioner", "local").code == 0
    with Catalogue.open(shop) as catalogue:  # captions are another generation
        write_measured(
            shop, "caption_weight", catalogue.generation.name, catalogue.embedder_bundle.fingerprint, {"value": 0.8}
        )
    for words, share in (((), 0.8), (("--set", "query.caption_weight=0.3"), 0.3)):
        asked = cli("query", "--text", "red", "--caption", "--index", shop, "--json", "--explain", *words)
        best = asked.document["garments"][0]["hits"][0]
        assert best["parts"]["image"] == pytest.approx((1 - share) * 0.7 * best["cosine"], abs=1e-5)


def test_each_layer_of_the_weight_of_captions_is_above_the_one_before(shop: Path, tmp_path: Path) -> None:
    """Defaults < what was measured < a file < the environment < --set < the query: for `search`,
    and for the library.
    """
    from fashionrec.catalogue.catalogue import Catalogue as OpenCatalogue
    from fashionrec.store.measured import write_measured

    (tmp_path / "own.yaml").write_text("query: {caption_weight: 0.5}")
    file, environment = {"files": [tmp_path / "own.yaml"]}, {"env": {"FASHIONREC_QUERY__CAPTION_WEIGHT": "0.6"}}
    none: dict[str, Any] = {"env": {}}
    given = [none, none | file, file | environment, file | environment | {"sets": ["query.caption_weight=0.7"]}]
    layers = [load_config(**options) for options in given]

    def weights(kind: type[OpenCatalogue]) -> list[float | None]:
        found = []
        for resolved in layers:
            with kind.open(shop, resolved) as catalogue:
                found.append(search(catalogue, Query(text="red")).query.caption_weight)
        return found

    default = layers[0].config.query.caption_weight
    assert weights(Catalogue) == weights(OpenCatalogue) == [default, 0.5, 0.6, 0.7]
    with Catalogue.open(shop, layers[0]) as catalogue:
        about = catalogue.generation.name, catalogue.embedder_bundle.fingerprint
    write_measured(shop, "caption_weight", *about, {"value": 0.8})
    assert weights(Catalogue) == weights(OpenCatalogue) == [0.8, 0.5, 0.6, 0.7]
    for kind in (Catalogue, OpenCatalogue):
        with kind.open(shop, layers[-1]) as catalogue:
            assert search(catalogue, Query(text="red", caption_weight=0.2)).query.caption_weight == 0.2


def test_words_are_translated_where_that_is_asked_for(
    cli: Callable[..., Result], shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openai_server import OpenAIServer, Reply, completion

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked = ["query", "--text", "빨간 가방 바지", "--index", shop, "--json", "--explain"]
    with OpenAIServer([Reply(body=completion('{"english": ["red bag pants"]}'))]) as server:
        where = ["--set", f"captioner.base_url={server.base_url}"]
        without = cli(*asked, *where)
        assert server.requests == []
        assert any("garment lexicon" in note for note in without.document["notes"])
        done = cli(*asked, *where, "--translate")
        assert done.code == 0, done.err
        (request,) = server.requests
        assert "빨간 가방 바지" in request.body["messages"][1]["content"]
        assert any("“red bag pants” by gpt-4o" in note for note in done.document["notes"])
        assert not any("does not know" in note for note in done.document["notes"])
        english = cli("query", "--text", "red pants", "--index", shop, "--json", *where, "--translate")
        assert english.code == 0
        assert len(server.requests) == 1  # what is English is not sent
    for answer in ('{"english": []}', '{"english": [3]}', "no"):
        with OpenAIServer([Reply(body=completion(answer))]) as server:
            done = cli(*asked, "--set", f"captioner.base_url={server.base_url}", "--translate")
            assert done.code == 1
            assert "translation is invalid" in done.err


def test_what_goes_with_it_is_chosen_on_one_half_and_judged_on_the_other(
    cli: Callable[..., Result], tmp_path: Path, build: Callable[..., BuildReport]
) -> None:
    """Red tops go with blue pants in the catalogue's photos, and in the looks; light blue ones are
    in more photos.
    """
    rows, looks = [], []
    for n in range(4):
        two_halves(tmp_path / "p" / f"look{n}.png", "#d00000", "#0000c0", (60 + n, 40))
        rows.append({"image": f"p/look{n}.png", "product_id": "blue", "category": "pants"})
    for n in range(6):
        two_halves(tmp_path / "p" / f"light{n}.png", "#ff2020", "#2020ff", (60 + n, 40))
        rows.append({"image": f"p/light{n}.png", "product_id": "light", "category": "pants"})
    two_halves(tmp_path / "p" / "top.png", "#d00000", "white", (60, 40))
    rows.append({"image": "p/top.png", "product_id": "red", "category": "top"})
    for n in range(4):
        two_halves(tmp_path / "q" / f"look{n}.png", "#d00000", "#0000c0", (70 + n, 50))
        looks += [
            {"image": f"q/look{n}.png", "product_id": product, "category": category}
            for product, category in (("red", "top"), ("blue", "pants"))
        ]
    for name, table in (("t", rows), ("looks", looks)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    build(tmp_path / "t.jsonl", tmp_path / "c")
    done = cli("evaluate", "--index", tmp_path / "c", "--outfits", tmp_path / "looks.jsonl", "--json")
    assert done.code == 0, done.err
    assert done.document["goes_with"]["queries"] == 4  # of the two looks that judge, each way
    assert done.document["goes_with"]["mrr"] > done.document["popularity"]["mrr"]
    assert set(done.document["chosen"]) == {"wearer", "worn"}
    lone = cli("evaluate", "--index", tmp_path / "c", "--outfits", tmp_path / "t.jsonl", "--json")
    assert lone.code == 2
    assert "none of 0 outfits" in lone.err


def test_a_detector_is_put_away_for_the_last_query_and_comes_back(shop: Path, photos: Path) -> None:
    class Counted(Catalogue):
        unloaded = 0

        def unload_detector(self) -> None:
            self.unloaded += 1
            super().unload_detector()

    photo = photos / "red-blue.jpg"
    with Counted.open(shop) as catalogue:
        usual = catalogue.search(photo)
        search(catalogue, Query(photo))
        assert catalogue.unloaded == 0  # others may come
        once = search(catalogue, Query(photo), once=True)
        assert catalogue.unloaded == 1
        again = catalogue.search(photo)
        assert catalogue.unloaded == 1
        for other in (once, again):
            assert other.to_dict()["garments"] == usual.to_dict()["garments"]


def test_ways_of_asking_in_one_table_and_the_weight_applied(
    cli: Callable[..., Result], shop: Path, photos: Path, tmp_path: Path
) -> None:
    from fashionrec.store.measured import FILE

    rows = [{"image": row["image"], "product_id": row["product_id"]} for row in ROWS]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["evaluate", "--index", shop, "--queries", tmp_path / "q.jsonl"]
    bare = cli(*asked, "--ways", "--apply")
    assert bare.code == 2
    assert "has no captions" in bare.err
    assert cli("caption", "--index", shop, "--captioner", "local").code == 0
    assert cli(*asked, "--apply").code == 2
    done = cli(*asked, "--ways", "--json")
    assert done.code == 0, done.err
    assert {"whole photo, picture", "crop, picture", "crop, caption", "crop, both (judged half)"} < set(
        done.document["ways"]
    )
    assert not (shop / FILE).exists()
    applied = cli(*asked, "--ways", "--apply", "--json")
    assert applied.code == 0, applied.err
    with Catalogue.open(shop) as catalogue:
        assert catalogue.measured.caption_weight == applied.document["caption_weight"]


@pytest.mark.parametrize("fusion", ["weighted", "rrf"])
def test_the_weight_is_tuned_on_the_ranking_that_serves(
    cli: Callable[..., Result], shop: Path, photos: Path, tmp_path: Path, fusion: str
) -> None:
    rows = [("red-white.jpg", "b", "top"), ("green.jpg", "c", ""), ("red-blue.jpg", "e", "top")]
    (tmp_path / "q.csv").write_text(
        "image,product_id,category\n" + "".join(f"photos/{','.join(row)}\n" for row in rows)
    )
    assert cli("caption", "--index", shop, "--captioner", "local").code == 0
    where = ["--index", shop, "--json"]
    for name, value in {"fusion": fusion, "same_class": 0.4, "hide_unavailable": False}.items():
        where += ["--set", f"query.{name}={value}"]
    measured = cli("evaluate", "--queries", "q.csv", "--ways", *where).document["weights"]
    reciprocal: dict[str, list[float]] = {"0.0": [], "0.5": [], "1.0": []}
    for weight, ranks in reciprocal.items():
        for photo, product, _ in rows[::2]:  # the half that tunes
            asked = ["query", photos / photo, "--garment", "top", "--caption", "-k", 100, *where]
            (garment,) = cli(*asked, "--set", f"query.caption_weight={weight}").document["garments"]
            scores = {hit["product_id"]: hit["score"] for hit in garment["hits"]}
            ranks.append(1 / sum(score >= scores[product] for score in scores.values()))
    assert {weight: measured[weight] for weight in reciprocal} == {
        weight: pytest.approx(np.mean(ranks)) for weight, ranks in reciprocal.items()
    }
    assert len(set(map(tuple, reciprocal.values()))) > 1, "a weight that changes nothing proves nothing"


def test_the_process_says_all_and_leaves_with_its_code(shop: Path, photos: Path) -> None:
    import subprocess
    import sys

    def ask(*words: str, **options: Any) -> Any:
        command = [sys.executable, "-m", "fashionrec", "query", *words, "--index", str(shop), "-q"]
        return subprocess.run(command, text=True, check=False, timeout=120, **options)

    answered = ask(str(photos / "green.jpg"), "--json", capture_output=True)
    assert answered.returncode == 0
    assert json.loads(answered.stdout)["garments"][0]["hits"][0]["product_id"] == "c"
    wrong = ask(str(photos / "nothing.jpg"), capture_output=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: ")
    assert ask("--no-such-option", capture_output=True).returncode == 2
    helped = ask("--help", capture_output=True)
    assert (helped.returncode, "--where" in helped.stdout) == (0, True)
    reader = subprocess.Popen([sys.executable, "-c", "pass"], stdin=subprocess.PIPE)
    reader.wait()
    assert reader.stdin is not None
    gone = ask(str(photos / "green.jpg"), "--json", stdout=reader.stdin, stderr=subprocess.PIPE)
    assert "Traceback" not in gone.stderr
