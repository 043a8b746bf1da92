"""Tables as products, exactly: what every column becomes, the order of problems and their words,
and what is no table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fashionrec.config import Config
from fashionrec.errors import ConfigError, DataError
from fashionrec.products.columns import OWN, Problem, Product, feed_vocabulary, map_products
from fashionrec.products.parquet import read_parquet
from fashionrec.products.records import TABLE_SUFFIXES, Table, is_table, read_table
from fashionrec.products.tables import ProductRow, read_ids, read_products


def table(*records: dict[str, Any], lines: tuple[int, ...] = ()) -> Table:
    return Table(Path("feed.csv"), list(records), lines or range(1, len(records) + 1))


def feed(config: Config, *records: dict[str, Any], **changes: Any) -> list[Product]:
    return list(map_products(table(*records), feed_vocabulary(config.feed.model_copy(update=changes))))


def test_the_vocabulary_of_a_feed(config: Config) -> None:
    settings = config.feed.model_copy(
        update={
            "currency": "eur",
            "columns": {"image": "foto", "title": ["a", "b"], "price": None, "brand": [], "url": ""},
        }
    )
    vocabulary = feed_vocabulary(settings)
    assert vocabulary.names == {"image": ("foto",), "title": ("a", "b")}
    assert (vocabulary.typed, vocabulary.currency, vocabulary.text) == (True, "EUR", {"foto", "a", "b"})
    assert OWN.names == {"image": ("image",), "product_id": ("product_id",)}
    assert (OWN.typed, OWN.currency, OWN.text) == (False, "", frozenset())


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"currency": "WON"}, "feed.currency: 'WON' is not a currency of ISO 4217", "KRW, USD, EUR, ..."),
        ({"columns": {"image": []}}, "feed.columns has no column for image", "for example image: [image_link]"),
    ],
)
def test_settings_of_a_feed_that_cannot_be(config: Config, change: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        feed_vocabulary(config.feed.model_copy(update=change))
    assert (str(caught.value), caught.value.hint) == (message, hint)


def test_a_table_without_images_is_told_by_its_columns(config: Config) -> None:
    many = {f"c{n:02d}": 1 for n in range(13, 0, -1)}
    first_twelve = ", ".join(f"c{n:02d}" for n in range(1, 13))
    with pytest.raises(DataError) as caught:
        feed(config, many, columns={"image": ["foto", "bild"]})
    assert str(caught.value) == f"the feed has no image column, only {first_twelve}"
    assert caught.value.hint == "name it: --set 'feed.columns.image=COLUMN' (now foto, bild)"
    for record, message, hint in (
        ({"photo": 1, "price": 2}, "photo, price", "rename the column with the photos' paths to image"),
        ({"images": 1, "price": 2}, "images, price", "did you mean images?"),
        (many, ", ".join(f"c{n:02d}" for n in range(13, 1, -1)), "rename the column with the photos' paths to image"),
    ):
        with pytest.raises(DataError) as caught:
            map_products(table(record))
        assert (str(caught.value), caught.value.hint) == (f"feed.csv has no column image, only {message}", hint)


def test_a_table_of_ours_is_taken_as_it_is() -> None:
    records: list[dict[str, Any]] = [
        {"image": " a.jpg ", "product_id": " 7 ", "price": "5 EUR", "sizes": [], "x": "[1]"},
        {"product_id": 8, "image": None},
        {"image": 5, "product_id": ""},
    ]
    assert list(map_products(table(*records, lines=(2, 5, 6)))) == [
        Product(1, 2, "7", ("a.jpg",), {"price": "5 EUR", "sizes": [], "x": "[1]"}),
        Product(2, 5, "8", ("",), {}),
        Product(3, 6, None, ("5",), {}),
    ]


def test_a_row_of_a_feed_and_its_problems_in_order(config: Config) -> None:
    first, second = feed(
        config,
        {
            "image": " ", "image_url": "b.jpg|a.jpg", "id": 7.0, "sku": "A-7", "name": "White\tshirt", "title": [],
            "price": "5.5 EUR",
            "sale_price": "4", "availability": 0, "sizes": [38, 39.5], "link": "https://shop/7", "category": ["Tops", "Shirts"],
            "release_date": "2026.3.1", "licence": "CC0", "license": "other", "brand": float("nan"), "weight": 3,
            "sizes_in_stock": {},
            "tags": [], "note": " ", "url": None, "stock": float("inf"), "currencies": "x",
        },
        {
            "image": [1], "id": [], "title": True, "price": "5 EUR", "sale_price": "4 USD", "currency": "Taler", "sizes": "[",
            "url": "https://me:secret@shop/x", "release_at": "soon\x07", "availability": "x" * 81, "brand": ["a", 5],
            "season": 2026,
        },
    )  # fmt: skip
    assert first == Product(
        1, 1, "7", ("b.jpg", "a.jpg"),
        {
            "title": "White shirt", "availability": "out_of_stock", "sizes_in_stock": ["38", "39.5"], "category": "Tops > Shirts",
            "url": "https://shop/7", "release_at": "2026-03-01", "photo_licence": "CC0", "price": 5.5, "sale_price": 4,
            "currency": "EUR", "sku": "A-7", "license": "other", "weight": 3, "currencies": "x",
        },
    )  # fmt: skip
    assert " ".join(first.columns) == (
        "title availability sizes_in_stock category url release_at photo_licence price sale_price currency sku license weight"
        " currencies"
    )
    assert second.columns == {"brand": "a > 5", "season": "2026", "price": 5, "currency": "EUR"}
    assert (second.row, second.line, second.product_id, second.images) == (2, 2, None, ())
    assert second.problems == (
        Problem(2, "title", "True", "is not text"),
        Problem(2, "availability", f"{'x' * 77}...", "is not a known availability"),
        Problem(2, "sizes", "[", "is not a list of sizes"),
        Problem(2, "url", "https://***@shop/x", "contains a user name or password"),
        Problem(2, "release_at", "soon\N{REPLACEMENT CHARACTER}", "is not a date such as 2026-11-24"),
        Problem(2, "image", "[1]", "is not an image"),
        Problem(2, "currency", "Taler", "is not a currency of ISO 4217"),
        Problem(2, "sale_price", "4 USD", "is in USD, but the row's currency is EUR"),
    )
    assert str(second.problems[2]) == "row 2, sizes: '[' is not a list of sizes"


@pytest.mark.parametrize("length", [80, 81])
def test_a_cell_of_more_than_80_characters_is_shown_in_part(config: Config, length: int) -> None:
    (product,) = feed(config, {"image": "a.jpg", "availability": "x" * length})
    assert product.problems[0].value == ("x" * 80 if length == 80 else "x" * 77 + "...")


@pytest.mark.parametrize(
    ("row", "columns", "problems"),
    [
        ({"price": "", "sale_price": "4 EUR"}, {"sale_price": 4, "currency": "EUR"}, []),
        (
            {"price": "5 EUR", "sale_price": "$4"}, {"price": 5, "currency": "EUR"},
            ["sale_price is in USD, but the row's currency is EUR"],
        ),
        ({"price": "x", "sale_price": "4"}, {"sale_price": 4, "currency": "KRW"}, ["price is not a price"]),
        (
            {"price": "5", "sale_price": "4 EUR"}, {"price": 5, "currency": "KRW"},
            ["sale_price is in EUR, but the row's currency is KRW"],
        ),
        ({"currency": "usd"}, {"currency": "USD"}, []),
        ({"price": "1.299", "currency": "USD"}, {"currency": "USD"}, ["price could be 1.299 or 1299"]),
        ({"price": "1.299", "currency": "Taler"}, {}, ["currency is not a currency of ISO 4217", "price could be 1.299 or 1299"]),
        ({"price": "1.299"}, {"price": 1299, "currency": "KRW"}, []),
        (
            {"price": "5 kr", "sale_price": "4 SEK"}, {"sale_price": 4, "currency": "SEK"},
            ["price has an unknown currency"],
        ),
        ({"price": "5 SEK", "sale_price": "4 kr"}, {"price": 5, "sale_price": 4, "currency": "SEK"}, []),
        ({"price": 5, "sale_price": 4, "currency": "€"}, {"price": 5, "sale_price": 4, "currency": "EUR"}, []),
        ({"price": "x"}, {}, ["price is not a price"]),
    ],
)  # fmt: skip
def test_one_currency_for_a_row(
    config: Config, row: dict[str, Any], columns: dict[str, Any], problems: list[str]
) -> None:
    (product,) = feed(config, {"image": "a.jpg", **row})
    assert product.columns == columns
    told = [(problem.column, problem.why.partition(": there")[0]) for problem in product.problems]
    assert [f"{column} {why}" for column, why in told] == problems


def test_other_names_of_a_typed_column_are_kept_nowhere(config: Config) -> None:
    """Check that what is not a price is not passed on as text, neither under the table's name nor
    under ours.
    """
    columns = {
        "image": ["foto", "bild"],
        "price": ["preis", "kosten"],
        "title": ["name", "titel"],
        "url": ["seite", "adresse"],
    }
    (product,) = feed(
        config,
        {
            "foto": "a.jpg", "bild": "b.jpg", "preis": "?", "kosten": "5", "name": "A", "titel": "B", "seite": "?",
            "adresse": "?",
            "price": "9", "sale_price": "8", "currency": "x", "availability": "?", "image": "c.jpg", "title": "C", "sku": 3,
        },
        columns=columns,
    )  # fmt: skip
    assert product.images == ("a.jpg",)
    assert product.columns == {"title": "A", "titel": "B", "sku": 3}
    assert [problem.column for problem in product.problems] == ["seite", "preis"]


# -- files


@pytest.mark.parametrize(
    ("name", "known"),
    [
        *((f"x{suffix.upper()}", True) for suffix in TABLE_SUFFIXES),
        ("x.json", False),
        ("csv", False),
        ("x.csv.gz", False),
    ],
)
def test_what_is_a_table_by_its_name(name: str, known: bool) -> None:
    assert is_table(Path(name)) is known


@pytest.mark.parametrize(
    ("name", "text", "message", "hint"),
    [
        ("a.csv", None, "no such file or folder: {}", "check the path"),
        (
            "a.txt",
            "",
            "{} is neither a folder of photos nor a table",
            "tables end in .csv, .tsv, .jsonl, .ndjson, .parquet",
        ),
        ("a.csv", "", "{} has no rows", ""),
        ("a.tsv", "image\n\n", "{} has no rows", ""),
        ("a.jsonl", "\n", "{} has no rows", ""),
        ("a.jsonl", '{}\n["a"]', "{}, line 2: every line must be a JSON object", ""),
        ("a.jsonl", "{}\n\n{", "{} cannot be read: line 3: ", "tables are UTF-8 CSV, JSONL or Parquet"),
        ("a.parquet", "PAR1", "{} cannot be read: ", "tables are UTF-8 CSV, JSONL or Parquet"),
    ],
)
def test_what_is_no_table(tmp_path: Path, name: str, text: str | None, message: str, hint: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert str(caught.value).startswith(message.replace("{}", str(path), 1))
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "2"], [1, 2]), (["1", "", "2.5"], [1.0, None, 2.5]), (["0", "-5", "+7"], [0, -5, 7]), (["1e3", "2"],
        [1000.0, 2.0]),
        (["00", "1"], ["00", "1"]), (["1", "x"], ["1", "x"]), (["9" * 18], [10**18 - 1]), (["9" * 19, "1"], ["9" * 19, "1"]),
        (["1e999"], ["1e999"]), (["1e1000"], ["1e1000"]), (["1."], ["1."]), ([".5"], [".5"]), (["-0.5", "+1.5e-3"],
        [-0.5, 0.0015]),
        (["01.5"], ["01.5"]), ([" 5 ", "6"], [5, 6]), (["-" + "9" * 19], ["-" + "9" * 19]), (["1E2"], [100.0]),
        (["nan"], ["nan"]),
    ],
)  # fmt: skip
def test_a_column_of_numbers(tmp_path: Path, cells: list[str], values: list[Any]) -> None:
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{cell},-\n" for cell in cells))
    found = [record.get("x") for record in read_table(tmp_path / "a.csv").records]
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]
    for name in ("image", "product_id"):
        (tmp_path / "a.csv").write_text(f"{name},y\n" + "".join(f"{cell},-\n" for cell in cells))
        expected = [cell.strip() or None for cell in cells]
        assert [record.get(name) for record in read_table(tmp_path / "a.csv").records] == expected


def test_the_columns_of_a_table_in_their_order_and_lines_of_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '\ufeff{"b": 1, "a": NaN, "c": [NaN, 1e999, 2.5]}\n{"d": true, "b": {"x": null}}\n', encoding="utf-8"
    )
    found = read_table(path)
    assert found.records == [{"b": 1, "c": [None, None, 2.5]}, {"d": True, "b": {"x": None}}]
    assert (found.columns, list(found.lines), found.path) == (["b", "c", "d"], [1, 2], path)
    limit = 8 << 20
    head, tail = '{"image": "a.jpg", "t": "', '"}'
    path.write_text(head + "x" * (limit - len(head) - len(tail)) + tail)
    assert len(read_table(path).records) == 1
    path.write_text(head + "x" * (limit - len(head) - len(tail) + 1) + tail)
    with pytest.raises(DataError, match="line 1 is longer than"):
        read_table(path)
    csv = tmp_path / "a.csv"
    csv.write_text('image,a\n"x\ny",1\n"z\n')
    assert read_table(csv).records == [{"image": "x\ny", "a": 1}, {"image": "z"}]
    assert list(read_table(csv).lines) == [2, 4]


@pytest.mark.train
def test_values_of_parquet_are_plain(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    import datetime
    import decimal

    frame = pandas.DataFrame(
        {
            "image": ["a.jpg", "b.jpg"], "n": [1, 2], "f": [0.5, float("inf")], "ok": [True, False], "tags": [["a", "b"], []],
            "day": [datetime.date(2026, 1, 2), None], "cost": [decimal.Decimal("1.50"), None], "s": [{"k": 1}, None],
        }
    )  # fmt: skip
    frame["when"] = pandas.to_datetime(["2026-01-02 03:04", None])
    frame.to_parquet(tmp_path / "p.parquet")
    found = read_table(tmp_path / "p.parquet")
    assert found.records == [
        {
            "image": "a.jpg", "n": 1, "f": 0.5, "ok": True, "tags": ["a", "b"], "day": "2026-01-02", "cost": "1.50",
            "s": {"k": 1},
            "when": "2026-01-02 03:04:00",
        },
        {"image": "b.jpg", "n": 2, "ok": False, "tags": []},
    ]  # fmt: skip
    assert list(found.lines) == [1, 2]
    assert json.loads(json.dumps(found.records)) == found.records


def arrow(path: Path, column: Any, **options: Any) -> int:
    import pyarrow
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.table({"image": column}), path, **options)
    return path.stat().st_size


@pytest.mark.train
def test_rows_and_bytes_that_a_parquet_table_may_hold(tmp_path: Path) -> None:
    """10,000 rows and 128 MiB, or as many rows as bytes and a hundred times its size."""
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "p.parquet"
    assert arrow(path, pyarrow.array([7] * 10_000, "int64")) < 10_000
    assert len(read_parquet(path)) == 10_000
    size = arrow(path, pyarrow.array([7] * 10_001, "int64"))
    with pytest.raises(DataError) as caught:
        read_parquet(path)
    assert str(caught.value) == f"{path} claims 10,001 rows in {size:,} bytes"
    assert caught.value.hint == "is it the right file? if so, save it as CSV or JSONL"
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 1 << 60, 12_000)
    assert arrow(path, pyarrow.array(noise)) > 12_000
    assert len(read_parquet(path)) == 12_000
    mebibyte = "x" * (1 << 20)

    def repeated(times: int) -> Any:
        return pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * times, pyarrow.int32()), [mebibyte])

    arrow(path, repeated(127), compression="zstd")
    assert len(read_parquet(path)) == 127
    both = pyarrow.MapArray.from_arrays([0, 64], *[pyarrow.array([mebibyte] * 64)] * 2)
    for column in (repeated(128), both):
        size = arrow(path, column, compression="zstd")
        with pytest.raises(DataError) as caught:
            read_parquet(path)
        assert str(caught.value) == f"{path} has {size:,} bytes and decodes to more than 128 MiB"


# -- rows of photos


def test_rows_of_a_table_a_folder_and_a_photo(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.webp", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "t.csv").write_text("image,product_id,x\nsub/c.webp,7,1\n/abs/d.jpg,,2\n")
    one = read_products(tmp_path / "b.png", photo=True)
    assert one == [ProductRow("b.png", tmp_path, "b.png")]
    folder = [ProductRow(name, tmp_path, name) for name in ("a.JPG", "b.png", "sub/c.webp")]
    assert read_products(tmp_path) == read_products(tmp_path, photo=True) == folder
    rows = [
        ProductRow("sub/c.webp", tmp_path, "7", {"x": 1}),
        ProductRow("/abs/d.jpg", tmp_path, "/abs/d.jpg", {"x": 2}),
    ]
    for options in ({}, {"folder": False}, {"photo": True}):
        assert read_products(tmp_path / "t.csv", **options) == rows
    assert [row.path for row in rows] == [tmp_path / "sub/c.webp", Path("/abs/d.jpg")]
    assert [row.location for row in rows] == [f"{tmp_path}/sub/c.webp", "/abs/d.jpg"]
    for source, options, message, hint in (
        (tmp_path / "b.png", {}, "is neither a folder of photos nor a table", "tables end in .csv"),
        (tmp_path / "none.png", {"photo": True}, "no such file or folder: ", "give a folder of photos"),
        (
            tmp_path,
            {"folder": False},
            "is not a table",
            "give a CSV, JSONL or Parquet file with the columns image and product_id",
        ),
        (tmp_path / "b.png", {"folder": False}, "is not a table", "give a CSV, JSONL or Parquet file with"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read_products(source, **options)
        assert caught.value.hint.startswith(hint)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no photos in") as caught:
        read_products(tmp_path / "empty")
    assert caught.value.hint == "expected .jpg, .png, .webp ... files, at any depth"


def test_ids(tmp_path: Path) -> None:
    (tmp_path / "ids.tsv").write_text("x\tproduct_id\n1\t007\n2\t\n")
    (tmp_path / "ids.jsonl").write_text('{"product_id": 7}\n{"x": 1}\n')
    (tmp_path / "ids").write_text(" 셔츠 \n\n007\n", encoding="utf-8")
    assert [read_ids(tmp_path / name) for name in ("ids.tsv", "ids.jsonl", "ids")] == [["007"], ["7"], ["셔츠", "007"]]
    (tmp_path / "ids").write_bytes(b"\xff")
    with pytest.raises(DataError, match=rf"^{tmp_path / 'ids'} cannot be read: "):
        read_ids(tmp_path / "ids")
    with pytest.raises(DataError, match=rf"^no such file or folder: {tmp_path / 'none'}$"):
        read_ids(tmp_path / "none")
