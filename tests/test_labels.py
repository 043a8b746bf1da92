"""Test what a data.yaml names, as every reader of data sets is told it, and label lines as each of
them reads them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fashionrec.common.reach import Reach
from fashionrec.errors import DataError
from fashionrec.labels.data_yaml import data_yaml_of, find_data_yaml, read_data_yaml, read_names
from fashionrec.labels.label_lines import LabelFault, LabelLine, TooManyBoxes, parse_labels


def dataset(root: Path, listing: str, name: str = "train.txt") -> Path:
    """A data set whose one split is a list of photos; two are there."""
    for photo in ("images/a.jpg", "images/b.jpg"):
        (root / photo).parent.mkdir(parents=True, exist_ok=True)
        (root / photo).write_bytes(b"x")
    (root / name).write_text(listing)
    (root / "data.yaml").write_text(f"names: [top]\nnc: 2\ntrain: {name}\nval: none\n")
    return root / "data.yaml"


def test_all_that_a_split_names_is_listed_with_its_line(tmp_path: Path) -> None:
    path = dataset(tmp_path / "d", "images/a.jpg\n\n/home/me/d/images/b.jpg\nimages/none.jpg\n../up.jpg\n")
    (tmp_path / "up.jpg").write_bytes(b"x")
    data = read_data_yaml(path)
    listed = list(data.listed("train"))
    assert [(one.line, one.photo and one.photo.name) for one in listed] == [
        (1, "a.jpg"),
        (3, None),
        (4, None),
        (5, None),
    ]
    assert [one.refused and one.refused.reason for one in listed] == [None, None, None, "outside"]
    assert {one.source for one in listed} == {tmp_path / "d" / "train.txt"}
    moved = list(data.listed("train", moved=True))  # as it was made on another machine
    assert [one.photo and one.photo.name for one in moved] == ["a.jpg", "b.jpg", None, None]
    (gone,) = data.listed("valid")
    assert (gone.path.name, gone.source, gone.photo, gone.refused, gone.line) == ("none", None, None, None, 0)
    assert data.document["nc"] == 2


def test_a_list_ends_in_txt_unless_any_file_is_one(tmp_path: Path) -> None:
    data = read_data_yaml(dataset(tmp_path / "a", "images/a.jpg\n", "TRAIN.TXT"))
    assert [photo.name for photo in data.images("train")] == ["a.jpg"]
    data = read_data_yaml(dataset(tmp_path / "b", "images/a.jpg\n", "train.lst"))
    with pytest.raises(DataError, match="is missing"):
        data.images("train")
    assert [one.photo for one in data.listed("train", any_list=True)] == [tmp_path / "b" / "images" / "a.jpg"]


def test_a_data_set_is_named_by_its_folder_or_its_yaml(tmp_path: Path) -> None:
    path = dataset(tmp_path / "d", "images/a.jpg\n")
    assert data_yaml_of(tmp_path / "d") == data_yaml_of(path) == find_data_yaml(tmp_path / "d") == path
    path.rename(tmp_path / "d" / "garments.yml")
    (tmp_path / "d" / "hyp.yaml").write_text("lr0: 0.1\n")
    assert find_data_yaml(tmp_path / "d") == tmp_path / "d" / "garments.yml"  # the one with splits
    (tmp_path / "d" / "other.yaml").write_text("names: [top]\ntrain: images\n")
    assert find_data_yaml(tmp_path / "d") is None
    (tmp_path / "d" / "classes.txt").write_text("top\n\nbag\n")
    assert read_names(Reach(tmp_path / "d")) == {0: "top", 2: "bag"}


def test_each_line_is_a_box_or_a_fault_and_the_next_is_read_all_the_same() -> None:
    text = "0 0.5 0.5 0.2 0.4\n\n-1 0 0 0 0\n2 0 0 1 0 1 1\nx"
    parsed = dict(parse_labels("a.txt", text))
    assert parsed[1] == LabelLine(0, 0.5, 0.5, 0.2, 0.4)
    assert parsed[1].corners == (0.4, 0.3, 0.6, 0.7)
    assert parsed[4] == LabelLine(2, 0.5, 0.5, 1, 1, points=3)
    faults = {line: fault.kind for line, fault in parsed.items() if isinstance(fault, LabelFault)}
    assert faults == {3: "negative-class", 5: "broken-label-line"}
    with pytest.raises(TooManyBoxes, match="more than 10,000 lines"):
        list(parse_labels("a.txt", "0 0 0 0 0\r" * 10_001))
