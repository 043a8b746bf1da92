"""Data sets and archives that name, or link to, what lies elsewhere: nothing outside is read, and
the reader says so.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from adversary.cells import unexpected
from adversary.fixtures import needs_linux, world  # noqa: F401
from adversary.home import SECRET, Watch, canary_state, differences
from adversary.project import NAMES, SOURCE, World
from conftest import TINY

pytestmark = needs_linux

PRIVATE = "Documents"
_HEAD = "names: " + json.dumps(NAMES) + "\n"
_COCO = {
    "categories": [{"id": n, "name": name} for n, name in enumerate(NAMES, 1)],
    "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [5, 5, 30, 30], "area": 900} for n in (1, 2)],
}
_VOC = """<annotation><filename>{name}</filename><path>{name}</path><size><width>120</width><height>90</height><depth>3</depth>
</size><object><name>top</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>50</xmax><ymax>50</ymax></bndbox></object></annotation>"""


def yolo(folder: Path, yaml: str, **files: str) -> None:
    """A data set of two photos of its own; ``files`` are more of its files by name."""
    for part in ("images", "labels"):
        (folder / "train" / part).mkdir(parents=True)
    for name in ("red-blue", "green"):
        shutil.copy(TINY / "photos" / f"{name}.jpg", folder / "train/images")
        (folder / f"train/labels/{name}.txt").write_text("4 0.25 0.5 0.5 1\n")
    (folder / "data.yaml").write_text(yaml + _HEAD)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def coco(folder: Path, name: str) -> None:
    folder.mkdir()
    shutil.copy(TINY / "photos" / "green.jpg", folder)
    images = [{"id": n, "file_name": file, "width": 120, "height": 90} for n, file in enumerate(("green.jpg", name), 1)]
    (folder / "annotations.json").write_text(json.dumps(_COCO | {"images": images}))


def voc(folder: Path, name: str) -> None:
    for part in ("JPEGImages", "Annotations"):
        (folder / part).mkdir(parents=True)
    shutil.copy(TINY / "photos" / "green.jpg", folder / "JPEGImages")
    for n, file in enumerate(("green.jpg", name)):
        (folder / f"Annotations/{n}.xml").write_text(_VOC.format(name=file))


def _photos_link(folder: Path, home: Path) -> None:
    yolo(folder, "train: train/images\n")
    (folder / "train/images/more.jpg").symlink_to(home / PRIVATE / "private.jpg")
    (folder / "train/labels/more.txt").write_text("4 0.25 0.5 0.5 1\n")


def _labels_link(folder: Path, home: Path) -> None:
    yolo(folder, "train: train/images\n")
    (folder / "train/labels/green.txt").unlink()
    (folder / "train/labels/green.txt").symlink_to(home / ".ssh/id_ed25519")


def _folder_link(folder: Path, home: Path) -> None:
    yolo(folder, "train: train/images\nval: valid/images\n")
    (folder / "valid").mkdir()
    (folder / "valid/images").symlink_to(home / PRIVATE)


def _labels_folder_link(folder: Path, home: Path) -> None:
    yolo(folder, "train: train/images\n")
    shutil.rmtree(folder / "train/labels")
    (folder / "train/labels").symlink_to(os.path.relpath(home / PRIVATE, folder / "train"))


def _yaml_link(folder: Path, home: Path) -> None:
    yolo(folder, "train: train/images\n")
    (folder / "data.yaml").unlink()
    (folder / "data.yaml").symlink_to(home / ".bashrc")


def _voc_link(folder: Path, home: Path) -> None:
    voc(folder, "private.jpg")
    (folder / "JPEGImages/private.jpg").symlink_to(home / PRIVATE / "private.jpg")


def _coco_link(folder: Path, home: Path) -> None:
    coco(folder, "more.jpg")
    (folder / "more.jpg").symlink_to(home / PRIVATE / "private.jpg")


def _pipe(folder: Path, home: Path) -> None:
    yolo(folder, "train: train/images\n")
    os.mkfifo(folder / "train/images/pipe.jpg")
    (folder / "train/labels/green.txt").unlink()
    os.mkfifo(folder / "train/labels/green.txt")


_up = "../" * 3 + PRIVATE
#: A folder ``src2`` in the project, and the sources that read it.
SOURCES: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "yolo: data.yaml names a folder": ("yolo", lambda folder, home: yolo(folder, f"train: {home}/{PRIVATE}\n")),
    "yolo: path of data.yaml": ("yolo", lambda folder, home: yolo(folder, f"path: {home}\ntrain: {PRIVATE}\n")),
    "yolo: relative": ("yolo", lambda folder, home: yolo(folder, f"train: {_up}\n")),
    "yolo: several": ("yolo", lambda folder, home: yolo(folder, f"train: [train/images, {home}/{PRIVATE}]\n")),
    "yolo: a list names a photo": (
        "yolo",
        lambda folder, home: yolo(
            folder, "train: train.txt\n", train_txt=f"train/images/green.jpg\n{home}/{PRIVATE}/private.jpg\n"
        ),
    ),
    "yolo: a list names a photo relatively": (
        "yolo",
        lambda folder, home: yolo(
            folder, "train: train.txt\n", train_txt=f"train/images/green.jpg\n{_up}/private.jpg\n"
        ),
    ),
    "yolo: a list elsewhere": ("yolo", lambda folder, home: yolo(folder, f"train: {home}/{PRIVATE}/plan.txt\n")),
    "yolo: a photo is a link": ("yolo", _photos_link),
    "yolo: a label is a link": ("yolo", _labels_link),
    "yolo: a folder of photos is a link": ("yolo", _folder_link),
    "yolo: a folder of labels is a link": ("yolo", _labels_folder_link),
    "yolo: data.yaml is a link": ("yolo", _yaml_link),
    "yolo: pipes": ("yolo", _pipe),
    "coco: absolute": ("coco", lambda folder, home: coco(folder, f"{home}/{PRIVATE}/private.jpg")),
    "coco: relative": ("coco", lambda folder, home: coco(folder, f"{_up}/private.jpg")),
    "coco: a photo is a link": ("coco", _coco_link),
    "voc: absolute": ("voc", lambda folder, home: voc(folder, f"{home}/{PRIVATE}/private.jpg")),
    "voc: relative": ("voc", lambda folder, home: voc(folder, f"{_up}/../{PRIVATE}/private.jpg")),
    "voc: a photo is a link": ("voc", _voc_link),
    "folder: a photo is a link": ("folder", _photos_link),
}


def untouched(world: World, *words: str) -> str:  # noqa: F811
    """Run a command; nothing outside the project was read or changed. Returns what it said."""
    before = canary_state(world.home, world.ours)
    with Watch(world.home, world.ours) as watch:
        ended = world.run(*words)
        seen = [(path, word) for path, word in watch.events() if path != world.home / "work"]
    said = ended.out + ended.err
    found = [path for path in world.project.rglob("*") if path.is_file() and not path.is_symlink()]
    leaked = [path for path in found if SECRET in path.read_bytes()]
    assert (seen, list(unexpected(ended)), leaked) == ([], [], []), said
    assert differences(before, canary_state(world.home, world.ours)) == []
    assert ended.code in (0, 2, 3), said
    assert "Traceback" not in said
    assert "this should not happen" not in said
    assert sum(line.startswith("error:") for line in ended.err.splitlines()) == (ended.code != 0)
    return said


@pytest.mark.parametrize("what", SOURCES)
def test_a_source_names_nothing_elsewhere(world: World, what: str) -> None:  # noqa: F811
    kind, make = SOURCES[what]
    make(world.project / "src2", world.home)
    try:
        untouched(world, "fetch-dataset", f"{kind}:src2", "--out", "out/d")
        if kind == "yolo":
            untouched(world, "dataset", "audit", "src2", "--html", "out/a.html")
            untouched(world, "dataset", "export", "src2", "--to", "coco", "--out", "out/coco")
            data = "src2" if "data.yaml is" in what else "src2/data.yaml"  # a file may be named by a link, too
            untouched(world, "evaluate", "--weights", "bundles/detector", "--data", data, "split=train")
    finally:
        world.restore_all()


@pytest.mark.parametrize("form", ["tar", "zip"])
@pytest.mark.parametrize("what", [what for what in SOURCES if "pipe" not in what])
def test_nor_does_an_archive(world: World, what: str, form: str) -> None:  # noqa: F811
    """Links are refused as a whole; names are those of the archive's own files."""
    kind, make = SOURCES[what]
    folder = world.scratch / "packed"
    make(folder, world.home)
    archive = world.project / f"src2.{form}"
    if form == "tar":
        with tarfile.open(archive, "w") as tar:
            tar.add(folder, ".")
    else:
        with zipfile.ZipFile(archive, "w") as packed:
            for path in sorted(folder.rglob("*")):
                info = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                if path.is_symlink():
                    info.external_attr = 0o120777 << 16
                    packed.writestr(info, str(path.readlink()))
                elif path.is_file():
                    packed.writestr(info, path.read_bytes())
    links = "link" in what
    shutil.rmtree(folder)
    try:
        said = untouched(world, "fetch-dataset", f"{kind}:{archive.name}", "--out", "out/d")
        if links:
            assert "error: " in said
            assert "link" in said
    finally:
        world.restore_all()


def test_links_are_followed_where_the_user_asks_for_it(world: World) -> None:  # noqa: F811
    """Only for what was named on the command line: a photo that is a link is then a photo."""
    yolo(world.project / "src2", "train: train/images\n")
    shutil.copy(TINY / "photos" / "grey.jpg", world.home / "work/grey.jpg")
    (world.project / "src2/train/images/more.jpg").symlink_to(world.home / "work/grey.jpg")
    (world.project / "src2/train/labels/more.txt").write_text("4 0.25 0.5 0.5 1\n")
    try:
        plain = world.run("fetch-dataset", "yolo:src2", "--out", "out/d", "--json")
        asked = ("--set", "dataset.follow_links=true", "--json")
        followed = world.run("fetch-dataset", "yolo:src2", "--out", "out/e", *asked)
        assert (plain.code, followed.code) == (0, 0), plain.err + followed.err
        counts = [json.loads(ended.out)["counts"]["top"] for ended in (plain, followed)]
        assert counts == [2, 3]
        assert "link" in plain.out + plain.err, "it is counted by reason"
    finally:
        (world.home / "work/grey.jpg").unlink()
        world.restore_all()


def test_what_the_user_reaches_through_a_link_is_used(world: World) -> None:  # noqa: F811
    """A catalogue, a bundle, project.data and project.runs may be links themselves."""
    for name, target in {"linked": "data/c", "linked-bundle": "bundles/detector", "d2": "data", "r2": "runs"}.items():
        (world.project / name).symlink_to(target)
    try:
        for words in (
            ("catalogue", "verify", "linked"),
            ("query", "new.jpg", "--index", "linked"),
            ("catalogue", "add", "new.jpg", "--index", "linked"),
            (
                "build-index",
                "photos",
                "--index",
                "out/n",
                "--detector",
                "linked-bundle",
                "--embedder",
                "bundles/embedder",
            ),
            ("fetch-dataset", f"yolo:{SOURCE}", "--set", "project.data=d2"),
            ("runs", "show", "r1", "--set", "project.runs=r2"),
        ):
            ended = world.run(*words)
            assert ended.code == 0, (words, ended.err)
    finally:
        world.restore_all()
