"""Label files and the data.yaml around them, exactly: boxes, faults and their words, what is
refused, and what is written.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from systems import posix_only

from fashionrec.common.reach import Reach, Refusal, following_links
from fashionrec.errors import DataError
from fashionrec.labels.data_yaml import (
    data_yaml_of,
    dataset_fingerprint,
    declared,
    find_data_yaml,
    read_data_yaml,
    read_names,
    write_own_yaml,
)
from fashionrec.labels.label_lines import (
    MAX_BOXES,
    MAX_LABEL_BYTES,
    LabelFault,
    LabelLine,
    TooManyBoxes,
    begins_with_a_box,
    label_path,
    orphan_labels,
    parse_label_line,
    parse_labels,
    read_label_text,
    read_labels,
)


def put(root: Path, *names: str, text: str = "x") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def whole(root: Path, document: dict[str, Any]) -> Path:
    """A data set of two splits that are folders."""
    put(root, "train/images/a.jpg", "train/images/b.png", "valid/images/c.jpg")
    put(root, "train/labels/a.txt", text="0 .5 .5 .2 .2\n")
    put(root, "valid/labels/c.txt", text="1 .5 .5 .2 .2\n")
    put(root, "data.yaml", text=yaml.safe_dump(document, sort_keys=False))
    return root / "data.yaml"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 .5 .25 .2 .4", LabelLine(0, 0.5, 0.25, 0.2, 0.4)),
        ("1e6 -1 2 0 0", LabelLine(1_000_000, -1, 2, 0, 0)),
        ("3 .1 .2 .5 .4 .3 1", LabelLine(3, 0.3, 0.6, 0.4, 0.8, 3)),
        ("3 .5 1 .1 .2 .3 .4 .2 .2", LabelLine(3, 0.3, 0.6, 0.4, 0.8, 4)),
        ("1000001 0 0 0 0", ("unknown-class", "class 1e+06", {"class_id": 1000001})),
        ("-1 0 0 0 0", ("negative-class", "class -1", {"class_id": -1})),
        (f"-1{'0' * 80} 0 0 0 0", ("negative-class", f"class {-1e80:.0f}"[:60], {"class_id": -1e80})),
        ("0.5 0 0 0 0", ("fractional-class", "class 0.5", {"class_id": 0.5})),
        ("0 0 0 nan 0", ("not-finite", "0 0 0 nan 0", {})),
        (f" 0 0 0 inf 0{' 0' * 40}", ("not-finite", f"0 0 0 inf 0{' 0' * 40}"[:60], {})),
        ("0 0 0 x 0", ("not-a-number", "'x' is not a number", {})),
        (f"0 0 {'y' * 61}", ("not-a-number", f"'{'y' * 60}' is not a number", {})),
        ("top 0 x y", ("broken-label-line", "'top 0 x y'", {})),
        (f" {'z' * 70}", ("broken-label-line", f"'{'z' * 60}'", {})),
        *(
            (" ".join("0" * count), ("wrong-field-count", f"{count} fields{why}", {"fields": count}))
            for count, why in (
                (1, ""), (4, ""), (6, ", as in predictions with confidence"), (8, ""), (10, ""),
            )
        ),
    ],
)  # fmt: skip
def test_a_line_is_a_box_or_a_fault_with_its_word(line: str, expected: Any) -> None:
    if isinstance(expected, LabelLine):
        box = parse_label_line(line)
        assert box == pytest.approx(expected)
        polygon = len(line.split()) > 5
        assert (type(box.class_id), box.points) == (int, (len(line.split()) - 1) // 2 if polygon else 0)
        return
    with pytest.raises(LabelFault) as caught:
        parse_label_line(line)
    assert (caught.value.kind, str(caught.value), caught.value.numbers) == expected


def test_limits_of_a_label_file(tmp_path: Path) -> None:
    box = "0 0 0 0 0"
    assert len(list(parse_labels("a.txt", f"{box}\n" * MAX_BOXES))) == MAX_BOXES == 10_000
    for lines in (f"{box}\n" * MAX_BOXES + box, f"{box}\r" * (MAX_BOXES + 1), "\n" * (MAX_BOXES + 1)):
        with pytest.raises(TooManyBoxes, match=r"^a\.txt has more than 10,000 lines$") as caught:
            list(parse_labels("a.txt", lines))
        assert caught.value.hint == "a label file has one line per box of one photo: is this another kind of file?"
    with pytest.raises(TooManyBoxes):  # before the first box is given
        next(parse_labels("a.txt", f"{box}\n" * (MAX_BOXES + 1)))
    most = 1 << 20
    assert [n for n, _ in parse_labels("a.txt", f"\n{box}{' ' * (most - len(box))}\n")] == [2]
    with pytest.raises(TooManyBoxes, match=r"^a\.txt, line 2 has more than 1,048,576 characters$"):
        list(parse_labels("a.txt", f"\n{box}{' ' * (most - len(box) + 1)}\n"))
    assert MAX_LABEL_BYTES == 16 << 20
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(MAX_LABEL_BYTES)
    assert len(read_label_text(tmp_path / "a.txt")) == MAX_LABEL_BYTES
    with (tmp_path / "a.txt").open("ab") as file:
        file.write(b"\n")
    with pytest.raises(TooManyBoxes, match="larger"):
        read_label_text(tmp_path / "a.txt")


@posix_only("named pipes")
def test_a_pipe_holds_no_labels(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "b.txt")
    with pytest.raises(DataError, match=r"b\.txt is ") as wrong:
        read_label_text(tmp_path / "b.txt")
    assert not isinstance(wrong.value, TooManyBoxes)


def test_labels_of_a_photo_as_an_array(tmp_path: Path) -> None:
    photo = tmp_path / "images" / "deep" / "images" / "images.x.jpg"
    assert label_path(photo) == tmp_path / "images" / "deep" / "labels" / "images.x.txt"
    assert label_path(Path("images")) == Path("images.txt")
    assert label_path(Path("images/a.png")) == Path("labels/a.txt")
    assert label_path(Path("x/images/sub/a.png")) == Path("x/labels/sub/a.txt")
    assert label_path(Path("images/a/b/c.png")) == Path("labels/a/b/c.txt")
    nothing = read_labels(photo)
    assert (nothing.shape, nothing.dtype) == ((0, 5), np.float64)
    put(tmp_path, "images/deep/labels/images.x.txt", text="\n")
    assert read_labels(photo).shape == (0, 5)
    put(tmp_path, "images/deep/labels/images.x.txt", text="0 .5 .25 .2 .4\n\n3 .1 .2 .5 .4 .3 1\n")
    np.testing.assert_allclose(read_labels(photo), [[0, 0.5, 0.25, 0.2, 0.4], [3, 0.3, 0.6, 0.4, 0.8]])
    put(tmp_path, "images/deep/labels/images.x.txt", text="0 .5 .25 .2 .4\n\n0 0\n")
    with pytest.raises(DataError, match=r"images\.x\.txt, line 3 is not a valid box: 2 fields$"):
        read_labels(photo)


def test_which_texts_are_label_files_and_which_are_of_no_photo(tmp_path: Path) -> None:
    box = "0 .5 .5 .2 .2\nword"
    put(tmp_path, "images/a.jpg", "images/b.txt", "images/notes.txt")
    put(tmp_path, "images/c.txt", "labels/a.txt", "labels/d.txt", "labels/sub/e.txt", "labels/.f.txt", text=box)
    other = (
        "classes.txt",
        "names.txt",
        "train.txt",
        "val.txt",
        "valid.txt",
        "test.txt",
        "README.en.txt",
        "LICENCE.txt",
    )
    put(tmp_path, *(f"labels/{name}" for name in (*other, "g.TXT", "list.txt")), text="no box")
    (tmp_path / "labels" / "linked.txt").symlink_to(tmp_path / "labels" / "a.txt")
    (tmp_path / "images" / "linked.png").symlink_to(tmp_path / "images" / "a.jpg")
    (tmp_path / "labels" / "lost.txt").symlink_to(tmp_path / "labels" / "a.txt")
    images, labels, reach = tmp_path / "images", tmp_path / "labels", Reach(tmp_path)
    assert list(orphan_labels(labels, [images], reach)) == [
        labels / "d.txt",
        labels / "list.txt",
        Refusal("labels/lost.txt", "link"),
    ]
    assert list(orphan_labels(images, [images], reach)) == [images / "c.txt"]  # notes beside photos are no labels
    assert begins_with_a_box(images / "c.txt") is True
    assert begins_with_a_box(images / "notes.txt") is False
    assert begins_with_a_box(images / "none.txt") is False
    (images / "c.txt").write_bytes(b"0 .5 .5 .2 .2\n\xff")
    assert begins_with_a_box(images / "c.txt") is True
    (images / "c.txt").write_bytes(b"\xff\n0 .5 .5 .2 .2")
    assert begins_with_a_box(images / "c.txt") is False


def test_the_keys_of_each_split_and_where_its_folders_are_looked_for(tmp_path: Path) -> None:
    root = tmp_path / "d"
    path = whole(
        root, {"names": {1: "bag", "0": "top"}, "train": ["train/images", "../valid/images"], "valid": "valid/images"}
    )
    data = read_data_yaml(path)
    assert data.names == {1: "bag", 0: "top"}
    assert data.splits == {"train": (root / "train/images", root / "valid/images"), "valid": (root / "valid/images",)}
    assert data.refused == {"train": (), "valid": ()}
    assert data.images("train") == [
        root / "train/images/a.jpg",
        root / "train/images/b.png",
        root / "valid/images/c.jpg",
    ]
    assert read_data_yaml(root) == data
    assert "document" not in repr(data)
    with path.open("a") as file:
        file.write("nc: 7\n")
    assert read_data_yaml(root) == data  # what else the file says makes no other data set
    # an empty key is none, `val` comes before `valid`, and what is nowhere is looked for below
    # `path`
    path = whole(
        root,
        {"names": ["top"], "train": "", "val": "gone", "valid": "valid/images", "test": "valid/images", "path": "sub"},
    )
    data = read_data_yaml(path)
    assert data.splits == {"valid": (root / "sub/gone",), "test": (root / "valid/images",)}
    with pytest.raises(DataError, match=rf"^the valid split of {path} is missing: {root}/sub/gone$"):
        data.images("valid")
    with pytest.raises(DataError, match=rf"^{path} has no train split$") as caught:
        data.images("train")
    assert caught.value.hint == "it has valid, test: choose one with --split"
    put(root, "list.txt", text="\n")
    whole(root, {"names": ["top"], "train": "list.txt"})
    with pytest.raises(DataError, match=rf"^the train split of {path} has no images$"):
        read_data_yaml(path).images("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such dataset: {path}"),
        ("train: images", "{path} is not a YOLO dataset: names is missing"),
        ("[names]", "{path} is not a YOLO dataset: names is missing"),
        ("names: 5", "{path} is not a YOLO dataset: invalid names ('int' object is not iterable)"),
        (
            "names: {a: b}",
            "{path} is not a YOLO dataset: invalid names (invalid literal for int() with base 10: 'a')",
        ),
        ("names: [", "{path} cannot be read: "),
    ],
)
def test_what_is_no_dataset(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "data.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=r"dataset|read") as caught:
        read_data_yaml(tmp_path)
    assert str(caught.value).startswith(message.format(path=path))
    assert bool(caught.value.hint) == (text is None)


def test_a_folder_beside_the_yaml_is_read_where_it_is_a_dataset(tmp_path: Path) -> None:
    """``path: ../garments`` of a yaml that lies in a folder of settings."""
    put(
        tmp_path / "garments",
        "images/train/a.jpg",
        "images/train/b.jpg",
        "photos/c.jpg",
        "labels/train/a.txt",
        text="0 .5 .5 .2 .2\n",
    )
    put(tmp_path / "settings", "data.yaml", text="path: ../garments\nnames: [top]\ntrain: images/train\nval: photos\n")
    path, garments = tmp_path / "settings" / "data.yaml", tmp_path / "garments"
    data = read_data_yaml(path)
    assert data.images("train") == [garments / "images/train/a.jpg", garments / "images/train/b.jpg"]
    assert data.reach.root == garments
    root = "../garments"
    for split, follow in (("images/train", False), ("photos", None)):  # what was unpacked; what has no folder of labels
        path.write_text(f"path: {root}\nnames: [top]\ntrain: {split}\n")
        found = read_data_yaml(path, follow)
        assert found.splits == {"train": ()}
        assert found.refused == {"train": (Refusal(f"{tmp_path}/settings/{root}/{split}", "outside"),)}
        assert found.reach.root == tmp_path / "settings"
        (listed,) = found.listed("train")
        assert (listed.path, listed.refused, listed.photo, listed.source) == (
            Path(f"{tmp_path}/settings/{root}/{split}"), found.refused["train"][0], None, None,
        )  # fmt: skip
        with pytest.raises(DataError, match="leads out of the dataset's folder"):
            found.images("train")
    # nor is one whose labels are missing, or a link
    put(tmp_path / "bare", "images/train/a.jpg")
    path.write_text("path: ../bare\nnames: [top]\ntrain: images/train\n")
    assert read_data_yaml(path).splits == {"train": ()}
    (tmp_path / "bare" / "labels").symlink_to(garments / "labels")
    assert read_data_yaml(path).splits == {"train": ()}
    # a folder further away, or one reached through a link, is none
    put(tmp_path / "garments/deep", "images/a.jpg", "labels/a.txt")
    path.write_text("path: ../garments/deep\nnames: [top]\ntrain: images\n")
    assert read_data_yaml(path).splits == {"train": ()}
    (tmp_path / "linked").symlink_to(tmp_path / "garments")
    path.write_text("path: ../linked\nnames: [top]\ntrain: images/train\n")
    assert read_data_yaml(path).splits == {"train": ()}
    with following_links(True):
        assert len(read_data_yaml(path).images("train")) == 2
    # its own folder by a way around is its own
    put(tmp_path / "settings", "images/a.jpg", "labels/a.txt")
    path.write_text("path: ../settings\nnames: [top]\ntrain: images\n")
    assert read_data_yaml(path).images("train") == [tmp_path / "settings/images/a.jpg"]
    assert read_data_yaml(path).reach.root == tmp_path / "settings"


def test_a_split_that_is_nowhere_or_elsewhere(tmp_path: Path) -> None:
    root = put(tmp_path / "d", "a.jpg")
    put(tmp_path, "other/a.jpg")
    put(root, "data.yaml", text="names: [top]\ntrain: ../other\nval: ../../nowhere/x\ntest: ../gone\n")
    data = read_data_yaml(root)
    assert data.refused == {
        "train": (Refusal(f"{root}/../other", "outside"),),
        "valid": (Refusal("../../nowhere/x", "outside"),),
        "test": (),
    }
    assert data.splits == {"train": (), "valid": (), "test": (root / "gone",)}
    followed = read_data_yaml(root, True)
    assert followed.splits["train"] == (root / "../other",)
    assert followed.splits["test"] == (root / "../gone",)
    assert not any(followed.refused.values())


def test_photos_and_labels_that_are_links_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "d"
    path = whole(root, {"names": ["top", "bag"], "train": "train/images", "val": "list.txt"})
    put(root, "list.txt", text="valid\\images\\c.jpg\n/none/x.jpg\nvalid/images/gone.jpg\n")
    put(tmp_path, "up.jpg", "up.txt")
    data = read_data_yaml(path)
    with pytest.raises(
        DataError, match=rf"^the valid split of {path}: /none/x\.jpg leads out of the dataset's folder$"
    ):
        data.images("valid")
    put(root, "list.txt", text="\ufeffvalid/images/gone.jpg\nvalid/images/c.jpg\n")
    assert data.images("valid") == [root / "valid/images/c.jpg", root / "valid/images/gone.jpg"]  # a build tells of it
    (root / "list.txt").write_bytes(b"valid/images/c.jpg\nvalid/images/\xff.jpg\n")
    assert [one.line for one in data.listed("valid")] == [1, 2]
    (root / "train/labels/b.txt").symlink_to(tmp_path / "up.txt")
    assert data.refused_labels(
        [root / "train/images/a.jpg", root / "train/images/b.png", root / "valid/images/c.jpg"]
    ) == [Refusal("train/labels/b.txt", "link")]
    with pytest.raises(
        DataError, match=rf"^the train split of {path}: train/labels/b\.txt is a link, which is not followed$"
    ):
        data.images("train")
    (root / "train/images/z.jpg").symlink_to(tmp_path / "up.jpg")
    with pytest.raises(DataError, match=r"2 names cannot be read \(2 link\), such as train/images/z\.jpg is a link"):
        data.images("train")
    (root / "valid/labels").rename(tmp_path / "labels")
    (root / "valid/labels").symlink_to(tmp_path / "labels")
    assert data.refused_labels([root / "valid/images/c.jpg", root / "valid/images/d.jpg"]) == [
        Refusal("valid/labels/c.txt", "link"),
        Refusal("valid/labels/d.txt", "link"),
    ]
    assert data.refused_labels([tmp_path / "up.jpg", tmp_path / "none.jpg"]) == [
        Refusal(str(tmp_path / "up.txt"), "outside")
    ]


def test_the_file_that_describes_a_folder(tmp_path: Path) -> None:
    for name in ("dataset.yaml", "data.yml", "data.yaml"):  # the last is asked first
        put(tmp_path, name, text="{}")
        assert find_data_yaml(tmp_path) == tmp_path / name
    for name in ("x.YAML", "none/x.yml"):
        assert find_data_yaml(tmp_path / name) == tmp_path / name
    for name in ("folder.yaml", "folder.YML"):  # refused where it is read, and not taken for the folder of a data set
        (tmp_path / name).mkdir()
        assert data_yaml_of(tmp_path / name) == tmp_path / name
    assert data_yaml_of(tmp_path) == tmp_path / "data.yaml"
    assert find_data_yaml(put(tmp_path / "e", "a.txt", "b.json")) is None
    put(tmp_path / "e", "garments.YML", text="names: [top]\nval: images\n")
    put(tmp_path / "e", "a.yaml", text="names: [top]\n")
    put(tmp_path / "e", "broken.yaml", text="[")
    assert find_data_yaml(tmp_path / "e") == tmp_path / "e" / "garments.YML"
    (put(tmp_path / "f", "x") / "data.yaml").symlink_to(tmp_path / "e" / "garments.YML")
    with pytest.raises(DataError, match="is a link"):
        find_data_yaml(tmp_path / "f")
    assert find_data_yaml(tmp_path / "f", True) == tmp_path / "f" / "data.yaml"


def test_class_names_without_a_data_yaml(tmp_path: Path) -> None:
    assert read_names(Reach(tmp_path)) == {}
    for name in ("data/obj.names", "labels/classes.txt", "names.txt", "obj.names", "classes.txt"):  # the last first
        put(tmp_path, name, text=f"\ufeff {name} \n\nbag\n")
        assert read_names(Reach(tmp_path)) == {0: name, 2: "bag"}
    (tmp_path / "classes.txt").write_bytes(b"t\xffp")
    assert read_names(Reach(tmp_path)) == {0: "t\ufffdp"}


def test_the_data_yaml_that_training_reads(tmp_path: Path) -> None:
    root = tmp_path / "d"
    data = read_data_yaml(whole(root, {"names": {0: "셔츠"}, "val": "valid/images", "test": "train/images"}))
    extra = put(tmp_path, "more/z.jpg") / "more/z.jpg"
    own = tmp_path / "a" / "own"
    target = write_own_yaml(data, own, {"valid": [extra]})
    assert target == own / "data.yaml"
    assert target.read_text(encoding="utf-8") == (
        f"path: {own}\nval: {own}/valid.txt\ntest: {own}/test.txt\ntrain: {own}/valid.txt\nnames:\n  0: 셔츠\n"
    )
    assert (own / "valid.txt").read_text() == f"{root}/valid/images/c.jpg\n{extra}\n"
    assert (own / "test.txt").read_text() == f"{root}/train/images/a.jpg\n{root}/train/images/b.png\n"
    data = read_data_yaml(whole(root, {"names": ["top"], "train": "train/images"}))
    document = yaml.safe_load(write_own_yaml(data, own).read_text())
    assert document == {"path": str(own), "train": f"{own}/train.txt", "val": f"{own}/train.txt", "names": {0: "top"}}
    put(root, "list.txt", text="train/images/a.jpg\ntrain/images/gone.jpg\n")
    data = read_data_yaml(whole(root, {"names": ["top"], "train": "list.txt"}))
    with pytest.raises(
        DataError, match=rf"^1 of 2 photos of {data.path} missing, first: {root}/train/images/gone\.jpg$"
    ):
        write_own_yaml(data, own)
    for name in ("a\u2028b.jpg", "c.jpg "):
        put(tmp_path / "odd", name)
        with pytest.raises(DataError, match="whose name a list cannot contain") as caught:
            write_own_yaml(data, own, {"test": [tmp_path / "odd" / name]} | {"train": [tmp_path / "odd" / name]})
        assert caught.value.hint == "rename it"


def test_what_a_dataset_says_of_itself(tmp_path: Path) -> None:
    assert declared(tmp_path) == declared(tmp_path / "data.yaml") == {}
    for text, message in (("[1]", "is not a dataset description"), ("{", "cannot be read: ")):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(DataError, match=rf"dataset\.json {message}"):
            declared(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"pixels": {"size": 5}}))
    assert declared(tmp_path) == declared(tmp_path / "data.yaml") == {"pixels": {"size": 5}}
    (tmp_path / "dataset.json").rename(tmp_path / "other.json")
    (tmp_path / "dataset.json").symlink_to(tmp_path / "other.json")
    with pytest.raises(DataError, match="is a link"):
        declared(tmp_path)


def test_the_fingerprint_is_of_names_sizes_and_labels_of_each_split_in_order(tmp_path: Path) -> None:
    path = whole(tmp_path, {"names": {1: "bag", 0: "top"}, "train": "train/images", "val": "valid/images"})
    names = b"[(0, 'top'), (1, 'bag')]"
    train = b"train/a.jpg:1\n0 .5 .5 .2 .2\ntrain/b.png:1\n"
    valid = b"valid/c.jpg:1\n1 .5 .5 .2 .2\n"

    def sha(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    assert dataset_fingerprint(path) == dataset_fingerprint(tmp_path) == sha(names + train + valid)
    assert dataset_fingerprint(path, ["valid", "train"]) == sha(names + valid + train)
    assert dataset_fingerprint(path, ()) == sha(names)
    put(tmp_path, "list.txt", text="train/images/gone.jpg\n")
    whole(tmp_path, {"names": ["top"], "train": "list.txt"})
    with pytest.raises(DataError, match=rf"^a photo of {path} is missing: {tmp_path}/train/images/gone\.jpg$"):
        dataset_fingerprint(path)
