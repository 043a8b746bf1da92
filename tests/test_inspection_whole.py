"""Whole folders under inspection: every finding, in its order, word by word."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from conftest import TINY
from foreign import archive
from systems import posix_only

from fashionrec.common.folder import Entry, Folder
from fashionrec.errors import DataError
from fashionrec.inspection import inspect_folder
from fashionrec.inspection.databases import check_database
from fashionrec.inspection.pickles import MAX_PICKLE, Budget, UnreadablePickle, archive_globals
from fashionrec.inspection.report import EFFECTS, Report
from fashionrec.inspection.tree import MAX_ENTRIES, inspect_tree
from fashionrec.store.schema import SCHEMA

pytestmark = posix_only("links")

EVAL = b"\x80\x02cbuiltins\neval\n."
MODEL = "m.yaml is not a valid model YAML: "
FOUND = tuple[str, str, str, str, bool]


def found(report: Report) -> list[FOUND]:
    return [(one.place, one.kind, one.what, one.effect, one.refused) for one in report.findings]


def array(value: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value)
    return buffer.getvalue()


def names(count: int) -> bytes:
    return b"\x80\x02" + b"".join(b"cm\nf%d\n0" % n for n in range(count)) + b"N."


def folder_of(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


@pytest.mark.parametrize(
    ("name", "content", "findings"),
    [
        ("a/.env", b"", [("environment", "settings for the environment", False)]),
        ("a/.profile", b"", [("hidden", "a hidden file or folder", False)]),
        (".a/b.txt", b"", [(".a", "hidden", "a hidden file or folder", False)]),
        ("a/.lock", b"", []),
        ("a/.captions.arrived", b"", [("caption-spool", "received captions", False)]),
        ("a.py/b.txt", b"", []),
        ("a/optimizer.pt", EVAL, [("pickle", "a pickle that names builtins.eval", False)]),
        ("optimizer.pt/a.pt", EVAL, [("pickle", "a pickle that names builtins.eval", True)]),
        ("a.pt", names(5), [("pickle", "a pickle that names m.f0, m.f1, m.f2, m.f3, m.f4", True)]),
        ("a.pt", names(6), [("pickle", "a pickle that names m.f0, m.f1, m.f2, m.f3, m.f4 and 1 more", True)]),
        ("a.cache", names(7), [("pickle", "a pickle; it names m.f0, m.f1, m.f2, m.f3, m.f4 and 2 more", False)]),
        ("a.npy", array(np.zeros(3)), []),
        ("a.jar", archive(a__data_dot_pkl=EVAL), [("program", "a program or script", False)]),
        (
            *("a.pt", archive(a__data_dot_pkl=EVAL, a__code__b_dot_py=b"")),
            [
                ("pickle", "a pickle that names builtins.eval", True),
                ("torchscript", "a torch.jit program (a/code/b.py)", True),
            ],
        ),
        ("a.engine.txt", b"x", []),
        ("a.SQLITE", b"junk" * 400, [("database", "not readable by SQLite: file is not a database", False)]),
        (
            *("a/data.yaml", b"a: ["),
            [
                ("yaml", "unreadable: ", False),
                ("dataset", "{root}/a/data.yaml", True),
            ],
        ),
        ("config.json", b"{", [("json", "unreadable: ", True)]),
        ("other.json", b"{", []),
    ],
)
def test_what_is_said_of_a_file_by_its_place_and_content(
    tmp_path: Path, name: str, content: bytes, findings: list[Any]
) -> None:
    root = folder_of(tmp_path / "theirs", {name: content})
    told = found(inspect_folder(root))
    expected = [one if len(one) == 4 else (name, *one) for one in findings]
    assert [(place, kind, refused) for place, kind, _, _, refused in told] == [(o[0], o[1], o[3]) for o in expected]
    for (_, kind, what, effect, _), (_, _, wanted, _) in zip(told, expected, strict=True):
        wanted = wanted.format(root=root)
        assert what.startswith(wanted) if name.endswith("data.yaml") or wanted.endswith(": ") else what == wanted
        unread = "unreadable: " in what or "not readable by SQLite" in what
        cached = "ultralytics unpickles it when it opens the dataset"
        assert effect == (cached if name == "a.cache" else "" if unread else EFFECTS[kind])


@pytest.mark.parametrize(
    ("manifest", "refused"),
    [("", {"a/data.yaml": False, "a/x.yaml": False}), ("data.yaml", {"a/data.yaml": True, "a/x.yaml": False})],
)
def test_a_yaml_that_cannot_be_read_is_refused_where_a_data_set_is_read_from_it(
    tmp_path: Path, manifest: str, refused: dict[str, bool]
) -> None:
    root = folder_of(tmp_path / "theirs", {"a/data.yaml": "a: [", "a/x.yaml": "a: ["})
    if manifest:
        (root / manifest).write_text("names: [top]\n")
    assert {one.place: one.refused for one in inspect_folder(root).findings if one.kind == "yaml"} == refused


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("activation: nn.ReLU()\n", ""),
        (
            "activation: evil()\n",
            f"{MODEL}activation: 'evil()' is not allowed",
        ),
        ("backbone: [[-1, 1, Conv, [8]]]\nhead: [[-1, 1, Conv, [8]]]\n", ""),
        (
            "backbone: [[-1, 1, Conv, [8]]]\nhead: [[-1, 1, os.system, [8]]]\n",
            f"{MODEL}head, layer 1: ",
        ),
        ("backbone: [[-1, 1, os.system, [8]]]\n", f"{MODEL}backbone, layer 1: "),
        ("head: [[-1, 1, os.system, [8]]]\n", ""),  # no model without a backbone
        ("lr0: 0.1\n", ""),
    ],
)
def test_a_models_yaml_is_checked_layer_by_layer(tmp_path: Path, document: str, told: str) -> None:
    findings = found(inspect_folder(folder_of(tmp_path / "theirs", {"m.yaml": document})))
    assert len(findings) == bool(told)
    for place, kind, what, effect, refused in findings:
        assert (place, kind, effect, refused) == ("m.yaml", "architecture", EFFECTS["architecture"], True)
        assert told in what


def test_a_bundle_is_as_its_manifest_says_file_by_file(tmp_path: Path) -> None:
    shutil.copytree(TINY / "detector", tmp_path / "theirs" / "in")
    root = folder_of(tmp_path / "theirs", {"notes.txt": "", "in/notes.txt": "", "in/sub/x.txt": ""})
    shutil.copyfile(root / "in" / "detect.onnx", root / "in" / "other.onnx")
    effect = "it could replace a file that was checked"
    report = inspect_folder(root)
    assert (report.kind, report.verdict) == ("unknown", "usable")
    assert found(report) == [
        ("in/notes.txt", "unlisted", "a file that the bundle does not list", effect, False),
        ("in/other.onnx", "unlisted", "a graph that the bundle does not list", effect, False),
    ]
    with (root / "in" / "detect.onnx").open("ab") as file:
        file.write(b"\0")
    told = [one for one in found(inspect_folder(root)) if one[1] != "graph"]
    assert [(place, kind, refused) for place, kind, _, _, refused in told] == [("in/bundle.json", "manifest", True)]
    assert "detect.onnx" in told[0][2]
    assert told[0][3] == "it differs from what its author wrote"
    (root / "link").symlink_to("nowhere")  # the reason then, and the only one
    assert [one.kind for one in inspect_folder(root).findings if one.kind != "graph"] == ["link"]


RUN = {"format": "fashionrec-run", "format_version": 1, "kind": "detector", "verb": "train", "status": "done"}


@pytest.mark.parametrize(
    ("weights", "outside"),
    [
        ("weights/best.pt", False),
        ("a/b/../../c.pt", False),
        ("./a//../b.pt", False),
        ("..a/b.pt", False),
        ("ab:c.pt", False),
        ("a/~", False),
        ("../b.pt", True),
        ("a/../../b.pt", True),
        ("./../b.pt", True),
        ("a//../../b.pt", True),
        ("a/../../a/b.pt", True),
        ("a\\..\\..\\b.pt", True),
        ("/b.pt", True),
        ("\\b.pt", True),
        ("~/b.pt", True),
        ("C:b.pt", True),
    ],
)
def test_weights_outside_of_a_runs_folder_are_named(tmp_path: Path, weights: str, outside: bool) -> None:
    record = json.dumps({**RUN, "weights": {"last": "last.pt", "best": weights}})
    report = inspect_folder(folder_of(tmp_path / "theirs", {"run.json": record}))
    told = ("run.json", "outside", f"its best weights are {weights}", "a file elsewhere would be loaded", True)
    assert (report.kind, found(report)) == ("run", [told] if outside else [])


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({}, "{root}/a/run.json has an incompatible format"),
        ({**RUN, "weights": {"best": 3}}, "{root}/a/run.json is damaged: it does not say what was trained"),
    ],
)
def test_a_run_that_cannot_be_read_is_refused(tmp_path: Path, record: Any, why: str) -> None:
    root = folder_of(tmp_path / "theirs", {"a/run.json": json.dumps(record)})
    what = f"unreadable: {why.format(root=root)}"
    assert found(inspect_folder(root)) == [
        ("a/run.json", "manifest", what, "it differs from what its author wrote", True)
    ]


def test_a_catalogue_that_is_none_is_refused(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "theirs", {"a/catalogue.json": "{}"})
    ((place, kind, what, effect, refused),) = found(inspect_folder(root))
    assert (place, kind, effect, refused) == (
        "a/catalogue.json",
        "manifest",
        "it differs from what its author wrote",
        True,
    )
    assert str(root / "a") in what


def test_the_kind_of_a_folder_is_that_of_the_first_manifest(tmp_path: Path) -> None:
    kinds = {"catalogue.json": "catalogue", "bundle.json": "bundle", "run.json": "run", "data.yaml": "dataset"}
    kinds["export.json"] = "export"
    root = folder_of(tmp_path / "theirs", dict.fromkeys(kinds, "{}"))
    for name, kind in kinds.items():
        assert inspect_folder(root).kind == kind
        (root / name).unlink()
    assert inspect_folder(root).kind == "unknown"


def test_a_folder_or_a_link_in_the_place_of_a_data_yaml_is_no_data_set(tmp_path: Path) -> None:
    root = tmp_path / "theirs"
    (root / "data.yaml").mkdir(parents=True)
    ((place, kind, what, effect, refused),) = found(inspect_folder(root))
    assert (place, kind, effect, refused) == ("data.yaml", "dataset", "training and evaluation refuse it", True)
    assert str(root / "data.yaml") in what
    (root / "data.yaml").rmdir()
    (root / "data.yaml").symlink_to("nowhere")
    report = inspect_folder(root)
    assert [(one.place, one.kind, one.refused) for one in report.findings] == [
        ("data.yaml", "link", True),
        ("data.yaml", "dataset", True),
    ]


def test_an_inspection_stops_after_so_many_entries(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "theirs", {name: "12" for name in ("a", "b", "c")})
    assert MAX_ENTRIES == 2_000_000
    for most, count in ((3, 3), (2, 2)):
        report = Report(root, "unknown")
        files = inspect_tree(Folder(root), report, Budget(), max_entries=most)
        assert [entry.name for entry in files] == ["a", "b", "c"][:count]
        assert (report.files, report.bytes) == (count, 2 * count)
        told = (".", "size", "more than 2 entries", "the rest was not checked", True)
        assert found(report) == ([] if most == 3 else [told])


class Faulty(Folder):
    """A folder that changes, or breaks, while it is looked at."""

    def __init__(self, root: Path, error: Exception | None = None, entries: tuple[Entry, ...] = ()) -> None:
        super().__init__(root)
        self.fault, self.all = error, entries

    def walk(self, name: str = "") -> Iterator[Entry]:
        return iter(self.all) if self.all else super().walk(name)

    def open(self, name: str, mode: Any = "rb") -> IO[bytes]:
        if self.fault and name == "a":
            raise self.fault
        return super().open(name, mode)


@pytest.mark.parametrize(
    ("error", "why"), [(OSError(5, "Input/output error"), "Input/output error"), (DataError("it moved"), "it moved")]
)
def test_a_file_that_cannot_be_read_is_refused_and_the_next_is_looked_at(
    tmp_path: Path, error: Exception, why: str
) -> None:
    root = folder_of(tmp_path / "theirs", {"a": "x", "b.sh": ""})
    report = Report(root, "unknown")
    inspect_tree(Faulty(root, error), report, Budget())
    assert found(report) == [
        ("a", "unreadable", f"unreadable: {why}", "its content is unknown", True),
        ("b.sh", "program", "a program or script", "it runs if somebody starts it, or if a library imports it", False),
    ]


def test_a_link_that_went_meanwhile_is_named_without_its_target(tmp_path: Path) -> None:
    report = Report(tmp_path, "run")
    inspect_tree(Faulty(tmp_path, entries=(Entry("gone", "link", 0),)), report, Budget())
    assert [(one.place, one.what, one.refused) for one in report.findings] == [("gone", "a link to ?", True)]


def test_folders_without_end_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "theirs"
    root.joinpath(*["a"] * 200).mkdir(parents=True)
    ((place, kind, what, effect, refused),) = found(inspect_folder(root))
    assert (place, kind, effect, refused) == (".", "size", "walking it might never end", True)
    assert "nested too deeply" in what


def test_archives_of_too_many_members_or_a_too_large_pickle_are_not_looked_through() -> None:
    assert MAX_PICKLE == 67_108_864
    whole = archive(a_dot_pkl=EVAL, b=b"", c__code__d_dot_py=b"")
    assert archive_globals(io.BytesIO(whole), Budget(), max_members=3) == (["builtins.eval"], ["c/code/d.py"])
    with pytest.raises(UnreadablePickle, match=r"^it has 3 members$"):
        archive_globals(io.BytesIO(whole), Budget(), max_members=2)
    size = len(EVAL)
    assert archive_globals(io.BytesIO(whole), Budget(), max_pickle=size) == (["builtins.eval"], ["c/code/d.py"])
    with pytest.raises(UnreadablePickle, match=rf"^a\.pkl has more than {size - 1} bytes$"):
        archive_globals(io.BytesIO(whole), Budget(), max_pickle=size - 1)
    large = archive(a=EVAL)  # another member is no pickle for certain, and read as far as it may be
    assert archive_globals(io.BytesIO(large), Budget(), max_pickle=size - 1) == (["builtins.eval"], [])


def database(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)
    return path


def one_database(tmp_path: Path, name: str, script: str, **options: Any) -> Callable[[str], list[FOUND]]:
    database(tmp_path / name, script)

    def check(kind: str) -> list[FOUND]:
        report = Report(tmp_path, kind)
        check_database(Folder(tmp_path), name, report, **options)
        return found(report)

    return check


def test_a_database_of_tables_and_its_index_is_nothing_to_tell(tmp_path: Path) -> None:
    check = one_database(tmp_path, "a.db", "CREATE TABLE t (a PRIMARY KEY, b); CREATE INDEX i ON t (b);")
    assert check("catalogue") == check("unknown") == []


@pytest.mark.parametrize("kind", ["catalogue", "unknown"])
def test_what_a_database_would_run_is_refused_in_a_catalogue(tmp_path: Path, kind: str) -> None:
    script = "CREATE TABLE t (a); CREATE VIEW v AS SELECT 1; CREATE VIRTUAL TABLE r USING rtree(a,b,c);"
    check = one_database(tmp_path, "a.db", script)
    (tmp_path / "a.db-wal").write_bytes(b"x")
    assert check(kind) == [
        (
            *("a.db-wal", "journal", "changes that SQLite would apply on opening the database"),
            *("it can name files to be deleted", False),
        ),
        ("a.db", "database", "it has a view 'v'", EFFECTS["database"], kind == "catalogue"),
        ("a.db", "database", "it has a virtual table 'r'", EFFECTS["database"], kind == "catalogue"),
    ]


@pytest.mark.parametrize("name", ["items.sqlite", "a/items.sqlite", "others.sqlite"])
def test_the_items_of_a_catalogue_have_our_tables_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    check = one_database(tmp_path, name, SCHEMA)
    assert check("catalogue") == []
    database(tmp_path / name, "CREATE TABLE mine (a); CREATE VIEW v AS SELECT 1;")
    (tmp_path / f"{name}-journal").write_bytes(b"x" * 600)
    view = (name, "database", "it has a view 'v'", EFFECTS["database"])
    journal = found(inspect_folder(tmp_path))[0]
    assert journal[:2] == (f"{name}-journal", "journal")
    assert check("unknown") == [journal, (*view, False)]
    mine = "its table 'mine' is not part of fashionrec's schema"
    served = (*view, True) if name == "others.sqlite" else (name, "database", mine, EFFECTS["database"], True)
    assert check("catalogue") == [journal, served]
    assert (tmp_path / f"{name}-journal").read_bytes() == b"x" * 600  # which SQLite would have removed


def test_reading_a_schema_is_bounded_in_steps_and_in_the_size_of_a_text(tmp_path: Path) -> None:
    check = one_database(tmp_path, "a.db", "CREATE TABLE t (a);", steps=1)
    assert check("catalogue") == [("a.db", "database", "not readable by SQLite: interrupted", "", True)]
    check = one_database(tmp_path, "b.db", f"CREATE TABLE t (a /* {'x' * 900} */);", max_value=800)
    assert check("unknown") == [("b.db", "database", "not readable by SQLite: string or blob too big", "", False)]


def test_a_graph_that_cannot_be_read_is_refused_in_a_bundle(tmp_path: Path) -> None:
    folder_of(tmp_path / "theirs", {"a/x.onnx": b"\xff\xff\xff"})
    for manifest, refused in (("", False), ("bundle.json", True)):
        if manifest:
            (tmp_path / "theirs" / manifest).write_text("{}")
        told = [one for one in found(inspect_folder(tmp_path / "theirs")) if one[1] == "graph"]
        assert [(one[0], one[3], one[4]) for one in told] == [("a/x.onnx", "", refused)]
        assert told[0][2].startswith("unreadable: ")
