"""`Catalogue.search` takes every option that the command has, and answers the same; what cannot be
asked is one clear error.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, two_halves
from PIL import Image

from fashionrec import Catalogue
from fashionrec.captioner.schema import QueryDescription
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.config import load_config
from fashionrec.embedder.embed import Embedder
from fashionrec.errors import FashionrecError, ImageError, UsageError
from fashionrec.search.answer import Answer
from fashionrec.search.query import OPTIONS, Query
from fashionrec.search.search import search
from fashionrec.search.words import Words
from fashionrec.types import Box

Cli = Callable[..., Result]

ROWS: list[dict[str, Any]] = [
    {"image": "photos/red-blue.jpg", "product_id": "a", "category": "top", "title": "red shirt", "price": 10},
    {"image": "photos/red-white.jpg", "product_id": "b", "category": "top", "title": "red blouse", "price": 20},
    {"image": "photos/green.jpg", "product_id": "c", "title": "a green lawn", "price": 30},
    {"image": "photos/grey.jpg", "product_id": "d", "title": "grey thing", "price": 40, "availability": "sold out"},
    {"image": "photos/white-blue.jpg", "product_id": "e", "category": "pants", "title": "blue pants", "price": 50},
]


@pytest.fixture
def shop(photos: Path, build: Callable[..., BuildReport], tmp_path: Path) -> Path:
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert build(tmp_path / "t.jsonl", tmp_path / "shop").failures == []
    return tmp_path / "shop"


def plain(document: Any) -> Any:
    """A document without what the command adds to it, and without the times."""
    if isinstance(document, dict):
        return {key: plain(value) for key, value in document.items() if key not in ("timings_ms", "changed", "notes")}
    return [plain(value) for value in document] if isinstance(document, list) else document


def products(answer: Answer) -> list[str]:
    return [hit.item.product_id for garment in answer.garments for hit in garment.hits]


#: Options of the command, and the same for the library. RED and GREEN are photos.
ASKED: dict[str, tuple[tuple[object, ...], dict[str, Any]]] = {
    "photo": (("RED",), {"photos": "RED"}),
    "photos": (("RED", "GREEN"), {"photos": ["RED", "GREEN"]}),
    "k": (("RED", "-k", 1), {"photos": "RED", "k": 1}),
    "garment": (("RED", "--garment", "pants"), {"photos": "RED", "garment": "pants"}),
    "garment by number": (("RED", "--garment", "1"), {"photos": "RED", "garment": 1}),
    "box": (("RED", "--box", "3,5,40,60"), {"photos": "RED", "box": (3, 5, 40, 60)}),
    "where": (("RED", "--where", "price > 15"), {"photos": "RED", "where": "price > 15"}),
    "min_score": (("RED", "--min-score", 0.9), {"photos": "RED", "min_score": 0.9}),
    "diversity": (("RED", "-k", 2, "--diversity", 0.8), {"photos": "RED", "k": 2, "diversity": 0.8}),
    "goes_with": (("RED", "--goes-with"), {"photos": "RED", "goes_with": True}),
    "text": (("--text", "red:2", "--text", "green:-1"), {"text": ["red:2", "green:-1"]}),
    "Words": (("--text", "blue pants"), {"text": Words("blue pants", 1.0)}),
    "photo and text": (("RED", "--text", "blue:0.5"), {"photos": "RED", "text": "blue:0.5"}),
    "merge": (("RED", "GREEN", "--text", "blue", "--merge"), {"photos": ["RED", "GREEN"], "text": "blue", "merge": True}),
    "like": (("--like", "a", "--like", "b", "--unlike", "c"), {"like": ["a", "b"], "unlike": "c"}),
    "same_class": (("RED", "--set", "query.same_class=0.4"), {"photos": "RED", "same_class": 0.4}),
    "words_weight": (
        ("RED", "--text", "blue", "--set", "query.words_weight=3"),
        {"photos": "RED", "text": "blue", "words_weight": 3},
    ),
    "lexical_weight": (("--text", "lawn", "--set", "query.lexical_weight=0.9"), {"text": "lawn", "lexical_weight": 0.9}),
    "fusion": (("--text", "red shirt", "--set", "query.fusion=rrf"), {"text": "red shirt", "fusion": "rrf"}),
    "hide_unavailable": (
        ("GREEN", "--set", "query.hide_unavailable=false"),
        {"photos": "GREEN", "hide_unavailable": False},
    ),
    "caption": (
        ("--text", "red", "--caption", "--set", "query.caption_weight=0.5"),
        {"text": "red", "caption": "local", "caption_weight": 0.5},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_the_library_answers_as_the_command_does(name: str, cli: Cli, shop: Path, photos: Path) -> None:
    names = {"RED": str(photos / "red-blue.jpg"), "GREEN": str(photos / "green.jpg")}
    words, options = ASKED[name]
    if name == "caption":
        assert cli("caption", "--index", shop, "--captioner", "local", "-q").code == 0
    told = cli("query", *(names.get(str(word), word) for word in words), "--index", shop, "--json", "--explain")
    assert told.code == 0, told.err
    given = options.get("photos")
    if given is not None:
        options = options | {"photos": names[given] if isinstance(given, str) else [names[one] for one in given]}
    with Catalogue.open(shop) as catalogue:
        answer = catalogue.search(**options)
        assert plain(answer.to_dict(explain=True)) == plain(told.document)
        if name not in ("photo", "photos", "photo and text", "text", "Words", "like"):
            few = {"photos", "text", "like", "unlike", *(["k"] if name == "diversity" else [])}
            without = catalogue.search(**{key: value for key, value in options.items() if key in few})
            assert plain(without.to_dict()) != plain(answer.to_dict()), "the option changes something"


def test_every_option_of_a_query_is_one_of_the_library_and_tested() -> None:
    options = {field.name for field in dataclasses.fields(Query)} - {"embedded"}  # asked again, of `search` alone
    others = {"self", "describe", "translate", "photo"}  # the last one until 0.3
    assert set(inspect.signature(Catalogue.search).parameters) == {*others, *options}
    assert set(OPTIONS) < options
    assert options == {name for _, given in ASKED.values() for name in given}


def test_photos_come_in_any_form(shop: Path, photos: Path) -> None:
    path = photos / "red-blue.jpg"
    with Image.open(path) as image:
        pixels = image.convert("RGB")
    array = np.asarray(pixels)
    with Catalogue.open(shop) as catalogue:
        usual = plain(catalogue.search(path).to_dict()["garments"])
        rgba = np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])
        for source in (str(path), path.read_bytes(), pixels, pixels.convert("RGBA"), array, rgba):
            answer = catalogue.search(source)
            assert plain(answer.to_dict()["garments"]) == usual
            assert answer.to_dict()["photo"] == (source if isinstance(source, str) else None)
            assert "data:image/jpeg" in answer.to_html()
        several = catalogue.search([path, array, pixels])
        assert [plain(result.to_dict()["garments"]) for result in several] == [usual] * 3
        grey = catalogue.search(np.full((40, 30), 128, np.uint8))
        assert (grey.results[0].width, grey.results[0].height) == (30, 40)
        turned = pixels.transpose(Image.Transpose.ROTATE_90)
        exif = turned.getexif()
        exif[0x0112] = 6  # to be turned to the right
        turned.info["exif"] = exif.tobytes()
        assert plain(catalogue.search(turned).to_dict()["garments"]) == usual


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(shape, kind)
        for shape, kind in (((4, 4, 3), "f4"), ((4, 4, 2), "u1"), ((2, 4, 4, 3), "u1"), ((0, 4), "u1"))
    ],
)
def test_an_array_that_is_no_photo_is_said(shop: Path, array: np.ndarray) -> None:
    with Catalogue.open(shop) as catalogue, pytest.raises(ImageError, match=r"uint8 \[height, width, 3\]"):
        catalogue.search(array)


def test_pixels_have_the_limits_of_files(shop: Path) -> None:
    config = load_config(env={}, sets=["images.max_pixels=100"]).config
    with Catalogue.open(shop, config) as catalogue, pytest.raises(ImageError, match="max_pixels"):
        catalogue.search(Image.new("RGB", (11, 10)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give a photo, `text` or `like`"),
        ({"photos": []}, "give a photo"),
        ({"photos": 3}, "a photo is int"),
        ({"photos": ["a.jpg", None]}, "a photo is NoneType"),
        ({"photos": "a.jpg", "k": -2}, "`k` should be at least 1, not -2"),
        ({"photos": "a.jpg", "k": 0}, "`k` should be at least 1, not 0"),
        ({"photos": "a.jpg", "k": "x"}, "`k` should be an integer, not 'x'"),
        ({"photos": "a.jpg", "k": 2.5}, "`k` should be an integer"),
        ({"photos": "a.jpg", "garment": "hat"}, "unknown garment 'hat'"),
        ({"photos": "a.jpg", "garment": -1}, "unknown garment '-1'"),
        ({"photos": "a.jpg", "box": (1, 2, 3)}, "`box` needs 4 numbers"),
        ({"photos": "a.jpg", "box": (1, 2, 3, math.nan)}, "`box` needs 4 numbers"),
        ({"photos": "a.jpg", "box": 5}, "`box` needs 4 numbers"),
        ({"text": "red", "box": (1, 2, 3, 4)}, "`box` needs a photo"),
        ({"photos": "a.jpg", "where": "price <"}, "expected a value before"),
        ({"text": ""}, "empty text"),
        ({"text": "red:11"}, "is 0 or outside -10..10"),
        ({"text": "red:-1"}, "at least one positive text or photo"),
        ({"text": 5}, "`text` should be words"),
        ({"text": ["red", None]}, "`text` should be words"),
        ({"photos": "a.jpg", "like": "a"}, "cannot be combined with a photo"),
        ({"text": "red", "unlike": "a"}, "`unlike` needs `like`"),
        ({"like": [3]}, "`like` should be the id"),
        ({"like": 3}, "`like` should be the id"),
        ({"photos": "a.jpg", "diversity": 1.5}, "`diversity` should be at most 1"),
        ({"photos": "a.jpg", "min_score": "much"}, "`min_score` should be a number"),
        ({"photos": "a.jpg", "min_score": math.nan}, "`min_score` should be a number"),
        ({"photos": "a.jpg", "same_class": -1}, "`same_class` should be at least 0"),
        ({"photos": "a.jpg", "text": "red", "words_weight": "x"}, "`words_weight` should be a number"),
        ({"photos": "a.jpg", "caption_weight": 2}, "`caption_weight` should be at most 1"),
        ({"text": "red", "lexical_weight": -0.1}, "`lexical_weight` should be at least 0"),
        ({"text": "red", "words_weight": -1}, "`words_weight` should be at least 0"),
        ({"text": "red", "fusion": "sum"}, "`fusion` should be weighted or rrf"),
        ({"text": "red", "caption": "me"}, "`caption` should be"),
        ({"text": "red", "hide_unavailable": "often"}, "`hide_unavailable` should be true or false"),
        ({"photos": "a.jpg", "merge": True, "goes_with": True}, "not `merge`"),
        ({"photos": "a.jpg", "text": "red:-1", "merge": True}, "needs at least one positive list"),
        ({"text": "red", "goes_with": True}, "`goes_with` needs a photo"),
    ],
)
def test_what_cannot_be_asked_is_one_clear_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Query(**options)
    assert message in str(caught.value)


def test_a_query_is_checked_before_the_catalogue_is_asked_for_anything(shop: Path, photos: Path) -> None:
    with Catalogue.open(shop) as catalogue:
        for options in ({"k": -2}, {"k": "x"}, {"garment": "hat"}, {"where": "price <"}):
            with pytest.raises(FashionrecError):
                catalogue.search(photos / "green.jpg", **options)  # type: ignore[arg-type]
        assert "embedder" not in vars(catalogue)


def test_an_answer_tells_all_that_was_asked(shop: Path, photos: Path) -> None:
    config = load_config(env={}, sets=["query.k=4", "query.diversity=0.1"]).config
    with Catalogue.open(shop, config) as catalogue:
        query = catalogue.search(photos / "red-blue.jpg", text="blue:0.5", box="1,2,30,40", min_score=0.25).query
    told = {name: getattr(query, name) for name in OPTIONS if name != "where"}
    assert None not in told.values()
    assert (query.k, query.diversity, query.min_score, query.garment) == (4, 0.1, 0.25, "all")
    assert query.text == (Words("blue", 0.5),)
    assert query.box == Box(1, 2, 30, 40)
    assert dataclasses.replace(query, k=3).k == 3


def test_an_answer_as_rows_and_as_a_data_frame(shop: Path, photos: Path) -> None:
    pytest.importorskip("pandas")
    with Catalogue.open(shop) as catalogue:
        answer = catalogue.search([photos / "red-blue.jpg", photos / "green.jpg"], k=2)
        nothing = catalogue.search(photos / "green.jpg", min_score=2)
    rows = answer.to_rows()
    assert [row["product_id"] for row in rows] == products(answer)
    assert [row["rank"] for row in rows] == [1, 2] * 3
    frame = answer.to_dataframe()
    assert frame.to_dict("records") == rows
    empty = nothing.to_dataframe()
    assert list(empty.columns) == list(frame.columns)
    assert len(empty) == 0


def test_an_answer_shows_itself_in_a_notebook_and_is_short_in_a_terminal(shop: Path, photos: Path) -> None:
    with Catalogue.open(shop) as catalogue:
        answer = catalogue.search(photos / "red-blue.jpg", k=2)
        data = catalogue.search((photos / "red-blue.jpg").read_bytes(), k=2)
    shown = answer._repr_html_()  # the catalogue is closed by now
    assert shown.count("data:image/jpeg;base64,") == 1 + 4  # the photo, and the hits of two garments
    assert shown.startswith("<iframe sandbox")
    assert "<html" not in shown, "it is escaped"
    assert repr(answer) == "<Answer: 1 result, 2 garments, 4 hits>"
    assert len(repr(data.query)) < 600


def test_of_several_photos_those_that_cannot_be_answered_are_failures(shop: Path, photos: Path, tmp_path: Path) -> None:
    asked = [photos / "green.jpg", tmp_path / "none.jpg", photos / "red-blue.jpg"]
    outcomes: list[object] = []
    with Catalogue.open(shop) as catalogue:
        answer = catalogue.search(asked)
        search(catalogue, Query(asked), report=outcomes.append)
        with pytest.raises(ImageError, match="no such photo"):
            catalogue.search([tmp_path / "none.jpg"])
    assert [result.photo for result in answer.results] == [str(asked[0]), str(asked[2])]
    assert [type(outcome).__name__ for outcome in outcomes] == ["QueryResult", "ImageError", "QueryResult"]
    document = answer.to_dict()
    assert [failure["reason"] for failure in document["failures"]] == ["missing"]
    assert len(document["answers"]) == len(answer) == 2
    assert repr(answer).endswith(", 1 failure>")


def test_what_an_answer_to_one_photo_had_before_is_still_there(shop: Path, photos: Path) -> None:
    with Catalogue.open(shop) as catalogue:
        alone = catalogue.search(photos / "red-blue.jpg")
        several = catalogue.search([photos / "red-blue.jpg", photos / "green.jpg"])
    for name in ("photo", "width", "seen", "vectors"):
        with pytest.warns(DeprecationWarning, match=rf"results\[0\]\.{name}"):
            found, own = getattr(alone, name), getattr(alone.results[0], name)
        assert found is own or all(a is b for a, b in zip(found, own, strict=True))
        assert not hasattr(several, name)
    assert not hasattr(alone, "nothing")


def test_the_name_that_photos_had_is_taken_still(shop: Path, photos: Path) -> None:
    with Catalogue.open(shop) as catalogue:
        with pytest.warns(DeprecationWarning, match="use photos instead of photo"):
            before = catalogue.search(photo=photos / "green.jpg", k=1)
        assert plain(before.to_dict()) == plain(catalogue.search(photos / "green.jpg", 1).to_dict())


def test_one_photo_in_a_list_is_answered_as_a_list(shop: Path, photos: Path) -> None:
    with Catalogue.open(shop) as catalogue:
        alone = catalogue.search(photos / "green.jpg").to_dict()
        listed = catalogue.search([photos / "green.jpg"]).to_dict()
    assert [plain(one) for one in listed["answers"]] == [plain(alone)]


def test_a_describer_of_ones_own_captions_the_garments(shop: Path, photos: Path) -> None:
    def describe(crops: object, vectors: np.ndarray, classes: object) -> list[QueryDescription | None]:
        return [QueryDescription("a red top", "red", {"color": "red"})] * len(vectors)

    with Catalogue.open(shop) as catalogue:
        answer = catalogue.search(photos / "red-blue.jpg", garment="top", describe=describe)
    assert [garment.garment.caption for garment in answer.garments] == ["a red top"]


def test_the_catalogues_own_encoder_describes_where_that_is_asked(cli: Cli, shop: Path, photos: Path) -> None:
    assert cli("caption", "--index", shop, "--captioner", "local", "-q").code == 0
    told = cli("query", photos / "red-blue.jpg", "--captioner", "local", "--index", shop, "--json", "--explain")
    with Catalogue.open(shop) as catalogue:
        answer = catalogue.search(photos / "red-blue.jpg", caption="local")
        plainly = catalogue.search(photos / "red-blue.jpg")
    assert plain(answer.to_dict(explain=True)) == plain(told.document)
    assert all(garment.garment.caption for garment in answer.garments)
    assert not any(garment.garment.caption for garment in plainly.garments)


class Listening(Embedder):
    """An encoder that counts the texts that it is asked."""

    texts = 0

    def embed_texts(self, texts: Sequence[str], batch: int = 64) -> np.ndarray:
        self.texts += len(texts)
        return super().embed_texts(texts, batch)


class ListeningCatalogue(Catalogue):
    @cached_property
    def embedder(self) -> Listening:
        return Listening(self.embedder_bundle)


def test_the_catalogues_own_encoder_learns_from_its_products_once(shop: Path, photos: Path) -> None:
    with ListeningCatalogue.open(shop) as catalogue:
        first = catalogue.search(photos / "red-blue.jpg", garment="top", caption="local")
        learnt = catalogue.embedder.texts
        second = catalogue.search(photos / "red-blue.jpg", garment="top", caption="auto")
    assert plain(second.to_dict()["garments"]) == plain(first.to_dict()["garments"])
    assert learnt > 10
    assert catalogue.embedder.texts - learnt == 1  # the caption of the garment


def test_words_are_translated_where_that_is_asked(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openai_server import OpenAIServer, Reply, completion

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with OpenAIServer([Reply(body=completion('{"english": ["red pants"]}'))]) as server:
        config = load_config(env={}, sets=[f"captioner.base_url={server.base_url}", "query.words_weight=2"]).config
        with Catalogue.open(shop, config) as catalogue:
            plainly = catalogue.search(text="빨간 바지")
            assert server.requests == []
            answer = catalogue.search(like="a", text=["빨간 바지", "blue:3"], translate="openai")
            with pytest.raises(UsageError, match="`translate` should be"):
                catalogue.search(text="바지", translate="me")
    assert len(server.requests) == 1
    assert [(word.english, word.weight) for word in answer.query.words] == [("red pants", 2.0), (None, 3.0)]
    assert any("red pants" in note for note in answer.notes)
    assert any("garment lexicon" in note for note in plainly.notes)


def test_what_goes_with_an_item_of_the_catalogue(tmp_path: Path, build: Callable[..., BuildReport]) -> None:
    two_halves(tmp_path / "p" / "look.png", "#d00000", "#0000c0")
    two_halves(tmp_path / "p" / "top.png", "#d00000", "gray")
    rows = [("look", "pants", "pants"), ("top", "top", "top")]
    (tmp_path / "t.csv").write_text(
        "image,product_id,category\n" + "".join(f"p/{image}.png,{product},{name}\n" for image, product, name in rows)
    )
    build(tmp_path / "t.csv", tmp_path / "c")
    with Catalogue.open(tmp_path / "c") as catalogue:
        (worn,) = catalogue.search(like="top", goes_with=True).results[0].goes_with or []
    assert [hit.item.product_id for hit in worn.hits] == ["pants"]


def test_the_blocks_of_the_documentation_run(
    shop: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parent.parent / "docs" / "query.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    shop.rename(_made(tmp_path / "data") / "example")
    _made(tmp_path / "examples" / "queries")
    for name in ("photo", "queries/p00001_q1", "queries/p00002_q1"):
        shutil.copy(photos / "red-blue.jpg", tmp_path / "examples" / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 3
    assert len(names["answer"].garments[0].hits) == 4
    assert capsys.readouterr().out.startswith("top [('a', ")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_what_was_embedded_is_asked_again_without_a_model(shop: Path, photos: Path) -> None:
    with Catalogue.open(shop) as catalogue:
        asked = [
            ({"photos": photos / "red-blue.jpg", "text": "blue:0.5"}, {"k": 3, "fusion": "rrf", "same_class": 0.4}),
            ({"text": "red shirt"}, {"k": 2, "lexical_weight": 0.9}),
            ({"text": "초록 정원"}, {"k": 2}),
            ({"like": "a", "unlike": "c"}, {"where": "price > 15"}),
        ]
        first = [catalogue.search(**question).results[0].queries for question, _ in asked]
        expected = [catalogue.search(**question, **options) for question, options in asked]
    with Catalogue.open(shop) as catalogue:
        for embedded, answer, (_, options) in zip(first, expected, asked, strict=True):
            again = search(catalogue, Query(embedded=embedded, **options))
            assert [garment.hits for garment in again.garments] == [garment.hits for garment in answer.garments]
        assert "finder" not in vars(catalogue)
        recommended = search(catalogue, Query(embedded=first[0], goes_with=True)).results[0].goes_with
        assert recommended is not None
        with pytest.raises(UsageError, match="`embedded` cannot be combined with other inputs"):
            Query(photos / "red-blue.jpg", embedded=first[0])
