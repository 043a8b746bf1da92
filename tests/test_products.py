"""Product tables and folders."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fashionrec.errors import DataError
from fashionrec.products.records import read_table
from fashionrec.products.tables import read_ids, read_products


def test_csv_columns_are_typed_and_empty_cells_left_out(tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text(
        'image,product_id,price,rating,code,title\na.jpg,001,39000,4.5,00123,셔츠\nb.jpg,,12000,,00124,"a, b"\n',
        encoding="utf-8-sig",
    )
    first, second = read_products(table)
    assert first.product_id == "001"
    assert first.path == tmp_path / "a.jpg"
    assert first.metadata == {"price": 39000, "rating": 4.5, "code": "00123", "title": "셔츠"}
    assert second.product_id == "b.jpg"
    assert second.metadata == {"price": 12000, "code": "00124", "title": "a, b"}


def test_jsonl_keeps_types_and_absolute_paths(tmp_path: Path) -> None:
    table = tmp_path / "p.jsonl"
    table.write_text(json.dumps({"image": "/shop/a.jpg", "price": 5, "sizes": ["S"], "gone": None}) + "\n\n")
    (row,) = read_products(table)
    assert row.path == Path("/shop/a.jpg")
    assert row.product_id == "/shop/a.jpg"
    assert row.metadata == {"price": 5, "sizes": ["S"]}


@pytest.mark.train
def test_parquet(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"image": ["a.jpg", "b.jpg"], "price": [1, 2], "sale": [0.5, None]})
    frame["when"] = pandas.to_datetime(["2026-01-02", None])
    frame.to_parquet(tmp_path / "p.parquet")
    first, second = read_products(tmp_path / "p.parquet")
    assert first.metadata["price"] == 1
    assert first.metadata["sale"] == 0.5
    assert second.metadata == {"price": 2}
    assert json.dumps(first.metadata)


def test_a_folder_is_one_product_per_photo(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (3, 3)).save(tmp_path / "sub" / "x.png")
    (row,) = read_products(tmp_path)
    assert (row.image, row.product_id) == ("sub/x.png", "sub/x.png")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file or folder: "),
        ("a.txt", "x", "neither a folder"),
        ("a.csv", "photo,price\nx,1\n", "no column image"),
        ("a.csv", "image\n", "no rows"),
        ("a.jsonl", "{broken", "cannot be read"),
        ("a.jsonl", '{"image": "a.jpg"}\n\n[1]\n', r"a\.jsonl, line 3: every line must be a JSON object"),
        ("a.csv", 'image\n"a\nb"\n' + "c" * 200_000, "cannot be read: line 4: field larger"),
        ("a.csv", b"image\n\xff\xfe\n", "cannot be read"),
    ],
)
def test_what_is_no_table_is_one_line_with_a_hint(
    tmp_path: Path, name: str, content: str | bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=message) as caught:
        read_products(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.csv", 'image,title\na.jpg,"one\ntwo"\n\nb.jpg,x\n,\n', [2, 5, 6]),
        ("a.csv", "\ufeffimage\r\na.jpg\r\nb.jpg", [2, 3]),
        ("a.tsv", "image\ttitle\na.jpg\tx\n", [2]),
        ("a.jsonl", '\n{"image": "a.jpg"}\n\n\n{"image": "b.jpg"}', [2, 5]),
    ],
)
def test_a_record_stands_on_the_line_where_it_begins(tmp_path: Path, name: str, content: str, lines: list[int]) -> None:
    table = tmp_path / name
    table.write_text(content, encoding="utf-8", newline="")
    assert list(read_table(table).lines) == lines


def test_a_cell_belongs_to_the_last_column_of_its_name_and_to_none_beyond_them(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("image,size,size,\na.jpg,1,2,3,4\nb.jpg,1\n")
    assert read_table(table).records == [{"image": "a.jpg", "size": 2}, {"image": "b.jpg"}]


def test_a_photo_or_a_folder_is_taken_only_where_the_command_takes_it(tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "x.png")
    assert [row.image for row in read_products(tmp_path / "x.png", photo=True)] == ["x.png"]
    with pytest.raises(DataError, match="neither a folder of photos nor a table"):
        read_products(tmp_path / "x.png")
    with pytest.raises(DataError, match="is not a table"):
        read_products(tmp_path, folder=False)


def test_ids_come_from_a_list_or_from_a_table(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text(" 001 \n\nb\n")
    (tmp_path / "ids.csv").write_text("product_id,price\n001,5\n,6\n")
    assert read_ids(tmp_path / "ids.txt") == ["001", "b"]
    assert read_ids(tmp_path / "ids.csv") == ["001"]


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no photos in"):
        read_products(tmp_path)


def test_what_floats_cannot_hold_stays_text_or_is_left_out(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("x,code,y\n1e999,12345678901234567890,1.5\n5,7,2\n")
    assert read_table(table).records == [
        {"x": "1e999", "code": "12345678901234567890", "y": 1.5},
        {"x": "5", "code": "7", "y": 2.0},
    ]
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"a": NaN, "b": {"k": Infinity, "n": [1.5, -Infinity, 1e999]}, "c": 2.5}\n')
    assert read_table(lines).records == [{"b": {"k": None, "n": [1.5, None, None]}, "c": 2.5}]


@given(st.lists(st.text(alphabet="0123456789.-+eE ", min_size=1, max_size=8), min_size=1, max_size=5))
def test_a_number_column_reads_back_as_the_same_numbers(
    tmp_path_factory: pytest.TempPathFactory, values: list[str]
) -> None:
    table = tmp_path_factory.mktemp("table") / "t.csv"
    table.write_text("\n".join(["x,y", *(f"{value},-" for value in values)]))
    rows = read_table(table).records
    kinds = {type(row["x"]) for row in rows if "x" in row}
    assert len(kinds) <= 1
    for row, value in zip(rows, values, strict=True):
        if "x" not in row:
            assert not value.strip()
        elif kinds == {str}:
            assert row["x"] == value.strip()
        else:
            assert row["x"] == float(value)
