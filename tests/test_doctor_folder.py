"""`fashionrec doctor FOLDER`: what a folder from somebody else holds, and that looking at it runs
and follows nothing.
"""

import io
import json
import os
import pickle
import re
import shutil
import sqlite3
import struct
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Result
from numpy.lib import format as format_
from systems import posix_only

from fashionrec import inspection
from fashionrec.inspection import inspect_folder
from fashionrec.inspection.pickles import Budget

Cli = Callable[..., Result]
Plant = Callable[[Path], object]

FOLLOWED: list[str] = []
_watching = False


HOOKED: list[object] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect"):
        FOLLOWED.append(f"{event} {arguments[:1]}")
    if event == "open" and "secret" in str(arguments[0]):
        FOLLOWED.append(f"open {arguments[0]}")


@pytest.fixture
def watched() -> Any:
    """Fails the test if anything is unpickled, started, connected to, or if a file named secret is
    opened.
    """
    global _watching
    if not HOOKED:
        sys.addaudithook(_hook)  # there is no way to take it away again
        HOOKED.append(_hook)
    FOLLOWED.clear()
    _watching = True
    yield
    _watching = False
    assert FOLLOWED == []


class Attack:
    """Pickles as a call of os.system."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch canary",)


def text(name: str, content: str) -> Plant:
    def plant(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")

    return plant


def data(name: str, content: bytes) -> Plant:
    def plant(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return plant


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def link(name: str, target: str) -> Plant:
    return lambda root: (root / name).symlink_to(target)


def mode(name: str, bits: int) -> Plant:
    def plant(root: Path) -> None:
        (root / name).write_text("x")
        (root / name).chmod(bits)

    return plant


def database(name: str, script: str) -> Plant:
    def plant(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(root / name)
        db.executescript(script)
        db.close()

    return plant


def array(dtype: str, before: str = "", length: int = 117) -> bytes:
    header = f"{before}{{'descr': '{dtype}', 'fortran_order': False, 'shape': (1,), }}".ljust(length) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + pickle.dumps(Attack())


def hard_link(root: Path) -> None:
    (root.parent / "outside.txt").write_text("mine")
    os.link(root.parent / "outside.txt", root / "inside.txt")


def data_set(more: str) -> Plant:
    """A data set of one photo, with more lines in its data.yaml."""

    def plant(root: Path) -> None:
        text("data.yaml", DATA_YAML + more)(root)
        text("train/labels/a.txt", "0 0.5 0.5 0.5 0.5\n")(root)
        (root / "train" / "images").mkdir()
        shutil.copyfile(TINY / "photos" / "green.jpg", root / "train" / "images" / "a.jpg")

    return plant


COMPUTED = b"\x80\x04\x8c\x01oN\x93."  # STACK_GLOBAL with None for a name
ALIASES = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1},*a{n - 1}]\n" for n in range(1, 40))
DATA_YAML = "names: [top]\ntrain: train/images\nval: train/images\n"
#: What is planted in a folder of no known kind, the finding, and whether the folder is refused for
#: it.
HOSTILE: dict[str, tuple[Plant, str, bool]] = {
    "link to a file": (link("notes.txt", "../secret"), "link", False),
    "link to a folder": (link("photos", ".."), "link", False),
    "dangling link": (link("gone", "nowhere"), "link", False),
    "loop": (link("loop", "loop"), "link", False),
    "pipe": (lambda root: os.mkfifo(root / "pipe"), "special-file", False),
    "hard link": (hard_link, "hard-link", False),
    "pickle": (data("best.pt", pickle.dumps(Attack(), 2)), "pickle", True),
    "pickle of protocol 0": (data("best.pt", pickle.dumps(Attack(), 0)), "pickle", True),
    "pickle of protocol 1": (data("best.bin", pickle.dumps(Attack(), 1)), "pickle", True),
    "pickle of protocol 4": (data("model.pkl", pickle.dumps([{"a": Attack()}], 4)), "pickle", True),
    "pickle in a torch archive": (data("best.pt", archive({"best/data.pkl": pickle.dumps(Attack())})), "pickle", True),
    "packed pickle in an archive": (
        data("best.pth", archive({"a/data.pkl": pickle.dumps(Attack())}, zipfile.ZIP_DEFLATED)),
        "pickle",
        True,
    ),
    "second pickle of a stream": (data("a.pt", pickle.dumps(OrderedDict()) + pickle.dumps(Attack())), "pickle", True),
    "pickle with another name": (data("photo.jpg", pickle.dumps(Attack(), 4)), "pickle", True),
    "computed global": (data("best.pt", COMPUTED), "pickle", True),
    "damaged pickle": (data("best.pt", pickle.dumps(Attack(), 4)[:-9]), "pickle", True),
    "damaged archive": (data("best.pt", archive({"best/data.pkl": pickle.dumps(1)})[:-9]), "pickle", True),
    "program for torch.jit": (data("m.pt", archive({"m/code/__torch__/a.py": b"x", "m/data.pkl": b"N."})), "torchscript", True),
    "array of objects": (data("x.npy", array("|O")), "pickle", False),
    "array of objects, padded": (data("x.npy", array("|O", " " * 5000, 6000)), "pickle", False),
    "array of objects, in two lines": (data("x.npy", array("|O", "\n")), "pickle", False),
    "array of objects, by an escape": (data("x.npy", array("\\x7cO")), "pickle", False),
    "array with a header that none reads": (data("x.npy", array("|O", length=65000)[:5000]), "pickle", False),
    "archive with objects, padded": (data("x.npz", archive({"x.npy": array("|O", " " * 5000, 6000)})), "pickle", False),
    "archive with objects": (data("x.npz", archive({"x.npy": array("|O")})), "pickle", False),
    "labels.cache": (data("labels.cache", pickle.dumps({"version": 1})), "pickle", False),
    "labels.cache with code": (data("train/labels.cache", pickle.dumps(Attack())), "pickle", False),
    "download": (data_set("download: import os; os.system('id')\n"), "download", False),
    "photos elsewhere": (text("data.yaml", "names: [top]\ntrain: /home/me/secret\n"), "dataset", True),
    "path elsewhere": (text("data.yaml", "names: [top]\npath: ../../me\ntrain: images\n"), "dataset", True),
    "a list elsewhere": (
        lambda root: (text("data.yaml", "names: [top]\ntrain: t.txt\n")(root), text("t.txt", "a.jpg\n../secret\n")(root)),
        "dataset",
        True,
    ),
    "activation": (text("yolo.yaml", "nc: 1\nactivation: __import__('os').system('id')\n"), "architecture", True),
    "YAML with objects": (text("data.yaml", "names: !!python/object/apply:os.system ['id']\n"), "yaml", True),
    "YAML of aliases": (text("x.yaml", ALIASES), "yaml", False),
    "code of a model": (text("config.json", json.dumps({"auto_map": {"AutoModel": "model.Evil"}})), "custom-code", False),
    "script": (text("install.sh", "rm -rf /"), "program", False),
    "script without a suffix": (text("run", "#!/bin/sh\nid"), "program", False),
    "program": (data("tool", b"\x7fELF" + bytes(60)), "program", False),
    "marked as a program": (mode("readme", 0o755), "executable", False),
    "writable by all": (mode("readme", 0o666), "writable", False),
    "hidden": (text(".bashrc", "id"), "hidden", False),
    "environment": (text(".env", "ROBOFLOW_API_URL=https://evil.example"), "environment", False),
    "control characters": (text("a\x1b]52;c;aWQ=\x07.txt", "x"), "name", False),
    "bidi override": (text("a\u202egpj.exe.txt", "x"), "name", False),
    "engine": (data("model.engine", b"x"), "engine", False),
    "trigger": (
        database("items.sqlite", "CREATE TABLE a(b); CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM a; END;"),
        "database",
        False,
    ),
    "view": (database("items.sqlite", "CREATE VIEW items AS SELECT 1;"), "database", False),
    "journal": (
        lambda root: (database("a.sqlite", "CREATE TABLE a(b);")(root), data("a.sqlite-journal", b"x")(root)),
        "journal",
        False,
    ),
    "caption batch": (text("caption-batches/part.jsonl", "{}"), "caption-batch", False),
    "caption spool": (text(".captions.arrived", "{}"), "caption-spool", False),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("-----BEGIN PRIVATE KEY-----")
    root = tmp_path / "theirs"
    root.mkdir()
    return root


NEEDED = {
    "pipe": "named pipes",
    "control characters": "names of any characters",
    "marked as a program": "modes of files",
    "writable by all": "modes of files",
}


def cases(names: Iterable[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case", [pytest.param(name, marks=posix_only(NEEDED[name]) if name in NEEDED else ()) for name in names]
    )


@cases(HOSTILE)
def test_what_is_hostile_is_named(case: str, folder: Path, cli: Cli, watched: None) -> None:
    plant, kind, refused = HOSTILE[case]
    plant(folder)
    start = time.process_time()
    done = cli("doctor", folder, "--json")
    assert time.process_time() - start < 10
    assert kind in done.document["counts"], done.document
    finding = next(found for found in done.document["findings"] if found["kind"] == kind)
    assert finding["refused"] is refused
    assert done.document["verdict"] == ("refused" if refused else "usable")
    assert done.document["changed"] is False
    assert done.code == (2 if refused else 0)
    assert bool(done.document.get("reason")) is refused
    assert not list(folder.parent.rglob("canary"))
    assert "PRIVATE KEY" not in done.out + done.err


@posix_only("modes of files")
def test_one_finding_that_is_refused_is_enough(folder: Path, cli: Cli) -> None:
    for case in ("hidden", "pickle", "writable by all", "script without a suffix"):  # in the order of their names
        HOSTILE[case][0](folder)
    done = cli("doctor", folder, "--json")
    assert (done.code, done.document["verdict"]) == (2, "refused")
    assert len(done.document["findings"]) == 4
    assert done.document["reason"].startswith("best.pt: a pickle that names")


@cases(["control characters", "bidi override", "pickle", "download", "link to a file"])
def test_the_page_prints_nothing_raw(case: str, folder: Path, cli: Cli) -> None:
    plant, kind, refused = HOSTILE[case]
    plant(folder)
    done = cli("doctor", folder)
    assert kind in done.out
    assert ("verdict: refused" if refused else "verdict: usable: the listed files are ignored") in done.out
    assert not {"\x1b", "\x07", "\u202e"} & {*done.out, *done.err}
    assert len(done.out.splitlines()) < 60


@pytest.mark.parametrize("version", [1, 2, 3])
def test_arrays_of_numbers_are_safe(version: int, folder: Path, cli: Cli) -> None:
    with (folder / "x.npy").open("wb") as file:
        format_.write_array(file, np.zeros(3, dtype=[("Only", "f4"), ("b", "i8", 2)]), (version, 0))
    assert cli("doctor", folder, "--json").document["verdict"] == "safe to use"


def test_a_pickle_is_told_by_what_it_names(folder: Path, cli: Cli) -> None:
    (folder / "best.pt").write_bytes(archive({"best/data.pkl": pickle.dumps([Attack(), eval, OrderedDict()])}))
    done = cli("doctor", folder)
    assert "best.pt: a pickle that names builtins.eval, posix.system" in done.out.replace("nt.system", "posix.system")
    assert "OrderedDict" not in done.out


def test_a_folder_of_no_known_kind_that_is_refused_is_not_called_of_no_known_kind(folder: Path, cli: Cli) -> None:
    told = " (not a catalogue, run, bundle or dataset; only its files were checked)"
    (folder / "notes.txt").write_text("x")
    assert cli("doctor", folder).out.splitlines()[-1] == f"verdict: safe to use{told}"
    (folder / "config.json").write_text("{")
    done = cli("doctor", folder)
    assert done.code == 2
    assert done.out.splitlines()[-1] == (
        "verdict: refused: commands that read this folder stop at the files listed as refused"
    )


@pytest.mark.parametrize("name", ["indexes", "segments", "generations", "bundles", "thumbnails.bin"])
def test_a_catalogue_with_a_link_is_refused(name: str, catalogue: Path, cli: Cli) -> None:
    shutil.rmtree(catalogue / name, ignore_errors=True)
    (catalogue / name).symlink_to("../..")
    done = cli("doctor", catalogue)
    assert done.code == 2
    assert f"{name}: a link to ../.." in done.out
    assert name in done.err


def test_a_catalogue_of_ours_is_safe_and_one_bit_makes_it_refused(catalogue: Path, cli: Cli) -> None:
    done = cli("doctor", catalogue, "--json")
    assert (done.code, done.document["kind"], done.document["verdict"]) == (0, "catalogue", "safe to use")
    assert done.document["findings"] == []
    vectors = next(catalogue.glob("segments/*/vectors.faiss"))
    raw = bytearray(vectors.read_bytes())
    raw[-1] ^= 1
    vectors.write_bytes(raw)
    done = cli("doctor", catalogue)
    assert done.code == 2
    assert "vectors.faiss has changed" in done.out


@pytest.mark.parametrize("name", ["captions.sqlite", "caption-batches/state.sqlite"])
def test_a_database_that_is_none_is_named(name: str, catalogue: Path, cli: Cli) -> None:
    place = catalogue / name
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b"junk" * 4096)
    document = cli("doctor", catalogue, "--json").document
    assert document["verdict"] == "refused"
    assert [one["place"] for one in document["findings"] if one["kind"] == "database"] == [name]


def test_a_catalogues_database_has_our_tables_only(catalogue: Path, cli: Cli) -> None:
    place = next(catalogue.rglob("items.sqlite"))
    with closing(sqlite3.connect(place)) as db:
        db.execute("CREATE INDEX mine ON garments (class_name)")
    document = cli("doctor", catalogue, "--json").document
    (finding,) = [one for one in document["findings"] if one["kind"] == "database"]
    assert finding["place"] == place.relative_to(catalogue).as_posix()
    assert finding["refused"]
    assert "'mine' is not part of fashionrec's schema" in finding["what"]


def test_what_a_journal_would_change_is_not_changed(catalogue: Path, cli: Cli) -> None:
    place = next(catalogue.rglob("items.sqlite"))
    journal = place.with_name("items.sqlite-journal")
    journal.write_bytes(b"x" * 600)  # SQLite would remove it
    before = place.read_bytes()
    document = cli("doctor", catalogue, "--json").document
    assert "journal" in document["counts"]
    assert (journal.read_bytes(), place.read_bytes()) == (b"x" * 600, before)


def test_a_catalogue_reached_through_a_link_is_fine(catalogue: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "shortcut").symlink_to(catalogue)
    assert cli("doctor", tmp_path / "shortcut", "--json").document["verdict"] == "safe to use"


@pytest.mark.parametrize("kind", ["detector", "embedder"])
def test_bundles_of_ours_are_safe_and_a_file_that_none_lists_is_ignored(kind: str, tmp_path: Path, cli: Cli) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(TINY / kind, bundle)
    assert cli("doctor", bundle, "--json").document["verdict"] == "safe to use"
    (bundle / "other.ready.onnx").write_bytes(next(bundle.glob("*.onnx")).read_bytes())
    done = cli("doctor", bundle, "--json")
    assert (done.code, done.document["verdict"], [*done.document["counts"]]) == (0, "usable", ["unlisted"])
    (bundle / "bundle.json").write_text((bundle / "bundle.json").read_text().replace('"size": ', '"size": 1'))
    assert cli("doctor", bundle, "--json").code == 2


def test_a_run_whose_weights_lie_elsewhere_is_refused(tmp_path: Path, cli: Cli) -> None:
    record = {"format": "fashionrec-run", "format_version": 1, "kind": "detector", "verb": "train", "status": "done"}
    (tmp_path / "run" / "weights").mkdir(parents=True)
    (tmp_path / "run" / "weights" / "best.pt").write_bytes(archive({"best/data.pkl": pickle.dumps(OrderedDict())}))
    for weights, verdict in (
        ("weights/best.pt", "safe to use"),
        ("./weights/../weights//best.pt", "safe to use"),
        ("../../secret.pt", "refused"),
        ("weights/../../secret.pt", "refused"),
        ("weights\\..\\..\\secret.pt", "refused"),
        ("C:secret.pt", "refused"),
        ("~/secret.pt", "refused"),
        ("\\secret.pt", "refused"),
    ):
        (tmp_path / "run" / "run.json").write_text(json.dumps({**record, "weights": {"best": weights}}))
        done = cli("doctor", tmp_path / "run", "--json")
        assert (done.document["kind"], done.document["verdict"]) == ("run", verdict)


def test_a_data_set_of_ours_is_safe(tmp_path: Path, cli: Cli) -> None:
    drawn = ("--set", "synthetic.images=6", "--set", "synthetic.products=0", "--set", "synthetic.size=96")
    assert cli("fetch-dataset", "synthetic", "--out", "world", *drawn).code == 0
    assert cli("fetch-dataset", "yolo:world", "--out", "set", "--counts", "2,2,2").code == 0
    for name in ("world", "set"):
        document = cli("doctor", tmp_path / name, "--json").document
        assert document["verdict"] == "safe to use", document
    assert document["kind"] == "dataset"


LONG = [pytest.param(what, marks=pytest.mark.release(seconds=15)) for what in ("bomb", "long pickle")]


@pytest.mark.parametrize("what", ["deep", "wide", *LONG])
def test_the_work_is_bounded(what: str, folder: Path, cli: Cli) -> None:
    if what == "deep":
        inner = folder
        for _ in range(200):
            inner = inner / "a"
        inner.mkdir(parents=True)
    elif what == "wide":
        for n in range(300):
            (folder / f"{n}.sh").write_text("")
    elif what == "bomb":
        member = pickle.dumps(bytes(15_000_000))
        (folder / "a.pt").write_bytes(archive({f"a/{n}.pkl": member for n in range(40)}, zipfile.ZIP_DEFLATED))
    else:
        (folder / "a.pkl").write_bytes(b"\x80\x02" + b"N0" * 3_000_000 + b".")
    start = time.process_time()
    done = cli("doctor", folder, "--json")
    assert time.process_time() - start < 60
    assert done.document["verdict"] == ("usable" if what == "wide" else "refused")
    if what == "wide":
        assert done.document["counts"]["program"] == 300
        assert len(done.document["findings"]) == 100


ZEROS = pickle.dumps(bytes(1000))  # as short as this, it is unpacked twice


@pytest.mark.parametrize(
    ("content", "enough"),
    [
        (b"\x80\x02" + b"N0" * 1000 + b"N.", Budget(instructions=2 * 2003)),
        (archive({"a/data.pkl": ZEROS}, zipfile.ZIP_DEFLATED), Budget(unpacked=2 * 2 * len(ZEROS))),
    ],
    ids=["instructions", "unpacked"],
)
def test_the_pickles_of_a_folder_have_one_budget(content: bytes, enough: Budget, folder: Path) -> None:
    for name in ("a.pt", "b.pt"):
        (folder / name).write_bytes(content)
    less = replace(enough, instructions=enough.instructions - 1, unpacked=enough.unpacked - 1)
    assert inspect_folder(folder, enough).verdict == "safe to use"
    assert inspect_folder(folder, replace(less)).verdict == "refused"
    (folder / "b.pt").unlink()
    assert inspect_folder(folder, less).verdict == "safe to use"


def test_the_documentation_names_every_finding() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in Path(inspection.__file__).parent.glob("*.py"))
    kinds = set(re.findall(r'add\(\s*[^,"]*(?:"\."|name \+ suffix)?,\s*"([a-z-]+)"', source)) | {
        kind for _, kind, _ in HOSTILE.values()
    }
    page = (TINY.parents[2] / "docs" / "sharing.md").read_text(encoding="utf-8")
    assert len(kinds) > 20, kinds
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in page] == []


def test_what_is_no_folder_is_refused(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("file", "missing"):
        assert cli("doctor", name).code == 2
    assert cli("doctor", tmp_path, "--index", "c").code == 2


@pytest.mark.train
def test_a_checkpoint_of_ultralytics_names_nothing_foreign(tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    from ultralytics import YOLO

    model = YOLO(str(TINY.parent / "yolov8-tiny.yaml"), verbose=False)
    model.save(str(tmp_path / "best.pt"))
    report = inspect_folder(tmp_path)
    assert report.verdict == "safe to use", report.findings


def _photos(folder: Path) -> None:
    for split in ("train", "valid"):
        (folder / split / "labels").mkdir(parents=True)
        (folder / split / "images").mkdir()
        shutil.copyfile(TINY / "photos" / "green.jpg", folder / split / "images" / "a.jpg")
        (folder / split / "labels" / "a.txt").write_text("4 0.5 0.5 0.2 0.2\n")


def test_a_data_yaml_beside_its_photos_is_as_safe_for_doctor_as_for_training(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    _photos(tmp_path / "photos")
    (tmp_path / "own").mkdir()
    text = "path: ../photos\ntrain: train/images\nval: valid/images\nnames: [dress, pants, 'skirt&pants', skirt, top]\n"
    (tmp_path / "own" / "data.yaml").write_text(text)
    assert cli("doctor", "own").code == 0
    assert cli("dataset", "audit", "own").code == 0


@pytest.mark.parametrize("entry", ["data.yaml", "train/images/b.jpg", "train/labels"])
def test_doctor_refuses_the_links_that_training_refuses(entry: str, cli: Callable[..., Result], tmp_path: Path) -> None:
    data = tmp_path / "data"
    _photos(data)
    (data / "data.yaml").write_text("train: train/images\nval: valid/images\nnames: [dress, pants]\n")
    shutil.move(data, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", data)
    if (data / entry).is_dir():
        shutil.rmtree(data / entry)
    (data / entry).unlink(missing_ok=True)
    (data / entry).symlink_to(tmp_path / "whole" / entry.replace("b.jpg", "a.jpg"))
    result = cli("doctor", "data", "--json")
    assert result.code == 2
    assert [one["place"] for one in result.document["findings"] if one["kind"] == "link" and one["refused"]] == [entry]
    assert "fetch-dataset" in result.err


def test_a_path_elsewhere_is_not_read_as_something_here(cli: Callable[..., Result], tmp_path: Path) -> None:
    """Photos in the yaml's own folder are not what a ``path`` elsewhere names."""
    _photos(tmp_path / "data")
    _photos(tmp_path / "far" / "away")
    text = "train: train/images\nval: valid/images\nnames: [dress, pants, 'skirt&pants', skirt, top]\n"
    (tmp_path / "data" / "data.yaml").write_text(f"path: {tmp_path}/far/away\n{text}")
    result = cli("dataset", "export", "data", "--to", "coco", "--out", "new")
    assert result.code == 2
    assert "leads out of the dataset's folder" in result.err
    assert cli("doctor", "data").code == 2
    (tmp_path / "data" / "data.yaml").write_text(f"path: /of/another/machine\n{text}")
    assert cli("dataset", "export", "data", "--to", "coco", "--out", "new").code == 0


def test_a_file_is_no_folder_and_doctor_says_what_to_do(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"x")
    result = cli("doctor", "best.pt")
    assert result.code == 2
    assert "put the file (an archive unpacked) into a folder" in result.err


def test_an_export_with_a_link_is_refused_as_the_import_refuses_it(
    cli: Callable[..., Result], catalogue: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    assert cli("catalogue", "export", tmp_path / "out", "--index", catalogue).code == 0
    honest = cli("doctor", "out", "--json")
    assert (honest.code, honest.document["kind"]) == (0, "export")
    (tmp_path / "out" / "notes.txt").symlink_to("/etc/hostname")
    assert cli("catalogue", "import", "out", "--index", "new").code == 2
    assert cli("doctor", "out").code == 2


def test_a_folder_of_no_known_kind_is_said_to_be_one(cli: Callable[..., Result], photos: Path) -> None:
    result = cli("doctor", photos)
    assert result.code == 0
    assert "only its files were checked" in result.out


@pytest.mark.parametrize("name", ["catalogue.json", "bundle.json", "run.json", "export.json"])
def test_a_folder_in_the_place_of_the_manifest_is_refused(name: str, folder: Path, cli: Cli) -> None:
    (folder / name).mkdir()
    done = cli("doctor", folder, "--json")
    assert (done.code, done.document["verdict"]) == (2, "refused")
    assert [found["place"] for found in done.document["findings"] if found["refused"]] == [name]
