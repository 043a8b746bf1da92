"""An inspection by hand: what is said of each file, in which kind of folder it is refused, and what
a pickle names.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import sqlite3
from collections import OrderedDict
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import archive
from numpy.lib import format as format_
from systems import posix_only

from fashionrec.errors import DataError
from fashionrec.inspection import inspect_folder
from fashionrec.inspection.pickles import (
    MAX_HEADER,
    OBJECTS,
    Budget,
    UnreadablePickle,
    archive_globals,
    foreign_globals,
    holds_objects,
    is_known,
    is_pickle,
    may_be_pickle,
)
from fashionrec.inspection.report import KEPT, Report

pytestmark = posix_only("links")


EVAL = b"\x80\x02cbuiltins\neval\n."
CUT = b"\x80\x02cbuiltins\neval\n"
LOADED = "some packages load it and take keys and hosts from it"
PRINTED = "a terminal would obey it when it is printed"
RUNS = "it runs if somebody starts it"
PROGRAM = ("program", "a program or script", f"{RUNS}, or if a library imports it", False)
HIDDEN = ("hidden", "a hidden file or folder", "it is easily overlooked", False)
ENGINE = ("engine", "an engine compiled for a GPU", "it is machine code that an inference library executes", False)
NAMES = ("pickle", "a pickle that names builtins.eval", "loading it calls the functions it names", True)
IGNORED = (*NAMES[:3], False)
CACHE = "ultralytics unpickles it when it opens the dataset"
DOWNLOAD = "ultralytics executes it as Python, a shell command or a URL when it trains or validates"
CODE = "transformers imports the code it names if told to trust it"
LAYERS = "ultralytics evaluates activations, and takes layers by name from whole modules"
UNREAD = "a pickle that cannot be read to the end: "
OBJECT_ARRAY = io.BytesIO()
np.save(OBJECT_ARRAY, np.array([None]), allow_pickle=True)
FILES: list[Any] = [
    *(
        (f"a{suffix}", b"", PROGRAM)
        for suffix in ".py .pyc .pyw .sh .bash .zsh .bat .cmd .ps1 .vbs .js .jar .exe .com .scr .msi .dll .so .dylib .pyd"
        " .desktop .lnk .app .command .ipynb .php .pl .rb .reg .PY".split()
    ),
    *(
        ("a", magic + b"xxxx", PROGRAM)
        for magic in (
            *(b"\x7fELF", b"MZ", b"#!", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xcf\xfa\xed\xfe"),
            b"\xca\xfe\xba\xbe",
        )
    ),
    *((f"a{suffix}", b"x", ENGINE) for suffix in (".engine", ".plan", ".trt", ".TRT")),
    *((name, b"", HIDDEN) for name in (".x", ".locks", ".DS_Store2", ".x.tmp", ".x.0g.tmp")),
    *(
        (name, b"", None)
        for name in (
            *(".lock", ".captions.lock", ".measured.json", ".gitignore", ".gitattributes", ".gitkeep", ".DS_Store"),
            *("._x", ".x.0f.tmp", "a.txt"),
        )
    ),
    (
        ".env",
        b"",
        ("environment", "settings for the environment", "some packages load it and take keys and hosts from it", False),
    ),
    pytest.param(
        "a\nb",
        b"",
        ("name", "a name with control or invisible characters", "a terminal would obey it when it is printed", False),
        marks=posix_only("names of any characters"),
    ),
    (
        *("caption-batches", b""),
        ("caption-batch", "requests to a captioning service", "they would be sent and paid for with your key", False),
    ),
    *(
        (name, b"", ("caption-spool", "received captions", "they would count as answers to your requests", False))
        for name in (".captions.arrived", ".captions.arrived.2")
    ),
    *((f"a{suffix}", EVAL, NAMES) for suffix in ("", ".pt", ".txt", ".bin")),
    *((f"a{suffix}", EVAL, IGNORED) for suffix in (".npz", ".npy")),
    *(
        (name, EVAL, IGNORED)
        for name in (
            "training_args.bin",
            "optimizer.pt",
            "scheduler.pt",
            "Scaler.pt",
            "rng_state.pth",
            "rng_state_0.pth",
        )
    ),
    *((name, EVAL, NAMES) for name in ("my_optimizer.pt", "optimizer.pth", "rng_state.pt")),
    ("a.cache", EVAL, ("pickle", "a pickle; it names builtins.eval", CACHE, False)),
    ("a.CACHE", b"\x80\x02N.", ("pickle", "a pickle", CACHE, False)),
    ("a.pt", b"\x80\x02N.", None),
    (
        "a.pt",
        CUT,
        ("pickle", f"{UNREAD}pickle exhausted before seeing STOP", "the functions it calls are unknown", True),
    ),
    *(
        (f"a{suffix}", b"cbuiltins\neval\n.", NAMES)
        for suffix in (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib")
    ),
    ("a.cache", b"cbuiltins\neval\n.", ("pickle", "a pickle; it names builtins.eval", CACHE, False)),
    ("a.txt", b"cbuiltins\neval\n.", None),
    ("a.pt", b"cbuiltins\neval\n", None),  # begins like an old pickle, and is none
    (
        "a.npy",
        OBJECT_ARRAY.getvalue(),
        ("pickle", f"a pickle that names {OBJECTS}", "loading it calls the functions it names", False),
    ),
    (
        "a.bin",
        OBJECT_ARRAY.getvalue(),
        ("pickle", f"a pickle that names {OBJECTS}", "loading it calls the functions it names", True),
    ),
    ("a.pt", archive(a__data_dot_pkl=EVAL), NAMES),
    ("a.npz", archive(x_dot_npy=EVAL), IGNORED),
    *((f"a{suffix}", archive(a__data_dot_pkl=EVAL), None) for suffix in (".xlsx", ".docx", ".zip", ".whl")),
    (
        *("a.pt", archive(a__code__b_dot_py=b"x", a__code__c_dot_py=b"y")),
        ("torchscript", "a torch.jit program (a/code/b.py)", "torch.jit.load executes it", True),
    ),
    (
        "a.pt",
        b"PK\x03\x04xx",
        ("pickle", f"{UNREAD}File is not a zip file", "the functions it calls are unknown", True),
    ),
    ("data.yaml", b"download: 'x'", ("download", "download: 'x'", DOWNLOAD, False)),
    ("a.yml", b"download: [1]", ("download", "download: [1]", DOWNLOAD, False)),
    ("a.yaml", b"download: ''", None),
    ("a.yaml", b"[1]", None),
    ("a.yaml", b"download: " + b"x" * 118, ("download", f"download: {'x' * 118!r}", DOWNLOAD, False)),
    ("a.yaml", b"download: " + b"x" * 119, ("download", f"download: {repr('x' * 119)[:117]}...", DOWNLOAD, False)),
    *(
        (name, json.dumps({key: "x"}).encode(), ("custom-code", f"{key}: 'x'", CODE, False))
        for key in ("auto_map", "custom_pipelines", "custom_objects", "trust_remote_code")
        for name in ("config.json", "tokenizer_config.json")
    ),
    (
        *("a.yaml", b"a: !" + b"x" * 200 + b" 1"),
        ("yaml", f"unreadable: could not determine a constructor for the tag '!{'x' * 112}", "", False),
    ),
    ("config.json", b'["auto_map"]', None),
    ("config.json", b'{"auto_map": {}}', None),
    ("other.json", b'{"auto_map": 1}', None),
    ("a.sqlite", b"", None),
]


@pytest.mark.parametrize(("name", "content", "finding"), FILES)
def test_what_is_said_of_a_file(tmp_path: Path, name: str, content: bytes, finding: Any) -> None:
    root = tmp_path / "theirs"
    root.mkdir()
    (root / name).write_bytes(content)
    (root / name).chmod(0o644)
    report = inspect_folder(root)
    kind = "dataset" if name == "data.yaml" else "unknown"
    assert (report.kind, report.files, report.bytes) == (kind, 1, len(content))
    found = [
        (one.place, one.kind, one.what, one.effect, one.refused) for one in report.findings if one.kind != "dataset"
    ]
    assert found == ([(name, *finding)] if finding else [])
    if kind == "unknown":
        assert report.verdict == ("refused" if finding and finding[3] else "usable" if finding else "safe to use")


@posix_only("named pipes")
@pytest.mark.parametrize(
    ("manifest", "kind", "refusing"),
    [
        ("catalogue.json", "catalogue", {"link", "special-file", "database", "graph"}),
        ("bundle.json", "bundle", {"link", "special-file", "graph"}),
        ("run.json", "run", {"link", "special-file", "pickle", "torchscript", "architecture", "json"}),
        ("data.yaml", "dataset", {"link", "special-file", "dataset"}),
        ("export.json", "export", {"link", "special-file"}),
        ("", "unknown", {"pickle", "torchscript", "architecture", "json"}),
    ],
)
def test_what_is_refused_in_which_kind_of_folder(tmp_path: Path, manifest: str, kind: str, refusing: set[str]) -> None:
    root = tmp_path / "theirs"
    root.mkdir()
    if manifest:
        (root / manifest).write_text("names: [top]\ntrain: nowhere\n" if kind == "dataset" else "{}")
    (root / "a.pt").write_bytes(archive(a__data_dot_pkl=EVAL, a__code__b_dot_py=b""))
    (root / "b.pt").write_bytes(CUT)
    (root / "link").symlink_to("/nowhere/" + "x" * 300)
    os.mkfifo(root / "pipe")
    (root / "model.yaml").write_text("activation: evil()\n")
    (root / "config.json").write_text("{")
    (root / "x.onnx").write_bytes(b"\xff\xff\xff")
    (root / "x.sqlite").write_bytes(b"junk" * 400)
    report = inspect_folder(root)
    assert report.kind == kind
    found = {one.place: (one.kind, one.what, one.effect) for one in report.findings}
    assert found["link"] == (
        *("link", f"a link to {('/nowhere/' + 'x' * 300)[:200]}"),
        "its target would be read, written or deleted",
    )
    told = ("special-file", "a pipe, socket or device", "reading it would hang, or reach a device")
    assert found["pipe"] == told
    assert found["model.yaml"][0] == "architecture"
    assert found["model.yaml"][2] == LAYERS
    assert found["config.json"][0] == "json"
    assert found["config.json"][1].startswith("unreadable: ")
    assert found["x.onnx"][:2][0] == "graph"
    assert found["x.sqlite"] == ("database", "not readable by SQLite: file is not a database", "")
    refused = {one.kind for one in report.findings if one.refused}
    assert refused == refusing
    assert {one.kind for one in report.findings} >= refusing | {"pickle", "torchscript", "graph", "database", "link"}


@pytest.mark.parametrize("manifest", ["", "run.json", "data.yaml"])
def test_a_graph_with_settings_for_its_runtime_is_refused_in_any_folder(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "theirs" / "a").mkdir(parents=True)
    (tmp_path / "theirs" / "a" / "x.onnx").write_bytes(b"\x72\x0c\x0a\x0aort_config")
    if manifest:
        (tmp_path / "theirs" / manifest).write_text("{}")
    (found,) = (one for one in inspect_folder(tmp_path / "theirs").findings if one.kind == "graph")
    assert (found.place, found.effect, found.refused) == (
        "a/x.onnx",
        "ONNX Runtime would read, load or execute it",
        True,
    )
    path = tmp_path / "theirs" / "a" / "x.onnx"
    assert found.what == f"{path} cannot be loaded: it carries settings for ONNX Runtime (ort_config)"


@posix_only("modes of files")
def test_modes_links_and_writable_folders(tmp_path: Path) -> None:
    root = tmp_path / "theirs"
    (root / "open").mkdir(parents=True)
    (root / "sticky").mkdir()
    (root / "open").chmod(0o777)
    (root / "sticky").chmod(0o1777)
    root.chmod(0o777)
    for name, mode in (("run", 0o755), ("group", 0o610), ("setuid", 0o4644), ("setgid", 0o2644), ("all", 0o666)):
        (root / name).write_text("")
        (root / name).chmod(mode)
    for name, targets in (("two", ["inside"]), ("three", ["inside2", "../outside", "../outside2"])):
        (root / name).write_text("")
        for target in targets:
            os.link(root / name, root / target)
    marked = ("executable", "a file with executable permission", RUNS)
    owner = ("executable", "it would run as its owner (setuid)", "it runs with its owner's rights")
    anybody = ("every user of this machine may change it", "it could be replaced after the check")
    writable = ("writable", *anybody)
    assert [(one.place, one.kind, one.what, one.effect) for one in inspect_folder(root).findings] == [
        (".", *writable),
        ("all", *writable),
        ("group", *marked),
        ("open", *writable),
        ("run", *marked),
        ("setgid", *owner),
        ("setuid", *owner),
        (
            *("inside2", "hard-link", "the same file as 2 outside this folder"),
            "writing to it would change the file outside",
        ),
    ]


def test_what_a_database_would_run(tmp_path: Path) -> None:
    root = tmp_path / "theirs"
    root.mkdir()
    db = sqlite3.connect(root / "a.db")
    db.executescript(
        f"CREATE TABLE t (a); CREATE VIEW {'v' * 70} AS SELECT 1; CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END;"
        "CREATE VIRTUAL TABLE f USING fts5 (a); CREATE VIRTUAL TABLE h USING fts5(a); CREATE VIRTUAL TABLE r USING rtree(a,b,c)"
    )
    db.close()
    for suffix in ("-journal", "-wal", "-shm"):
        (root / f"a.db{suffix}").write_bytes(b"x")
    effect = "it executes its author's statements whenever a table is read or written"
    applies = ("journal", "changes that SQLite would apply on opening the database", "it can name files to be deleted")
    found = [(one.place, one.kind, one.what, one.effect, one.refused) for one in inspect_folder(root).findings]
    assert sorted(found) == [
        ("a.db", "database", "it has a trigger 'g'", effect, False),
        ("a.db", "database", f"it has a view {'v' * 60!r}", effect, False),
        ("a.db", "database", "it has a virtual table 'r'", effect, False),
        ("a.db-journal", *applies, False),
        ("a.db-wal", *applies, False),
    ]


def test_a_report_counts_all_and_keeps_a_hundred_of_a_kind(tmp_path: Path) -> None:
    report = Report(tmp_path, "run")
    assert (report.verdict, report.reason) == ("safe to use", "")
    assert report.document() == {
        **{"folder": str(tmp_path), "kind": "run", "verdict": "safe to use", "changed": False},
        **{"files": 0, "bytes": 0, "counts": {}, "findings": []},
    }
    for n in range(KEPT + 2):
        report.add(str(n), "hidden", "w", "e")
    report.add("x", "pickle", "first", "e")
    assert (KEPT, len(report.findings), report.counts) == (100, 101, {"hidden": 102, "pickle": 1})
    assert report.verdict == "usable"
    report.add("y", "pickle", "second", "e", refused=True)
    report.add("z", "link", "third", "e")
    assert (report.verdict, report.reason) == ("refused", "y: second")
    assert report.document()["reason"] == "y: second"
    assert report.document()["findings"][-1] == {
        **{"place": "z", "kind": "link", "what": "third", "effect": "e", "refused": False}
    }
    report.refuse("link", "special-file")
    assert [one.place for one in report.findings if one.refused] == ["y", "z"]


def test_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, message, hint in (
        ("gone", f"no such folder: {tmp_path / 'gone'}", ""),
        (
            "file",
            f"{tmp_path / 'file'} is not a folder",
            "put the file (an archive unpacked) into a folder and check that",
        ),
    ):
        with pytest.raises(DataError) as caught:
            inspect_folder(tmp_path / name)
        assert (str(caught.value), caught.value.hint) == (message, hint)


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


OS, X, STACK = text("os"), text("x"), b"\x93."


@pytest.mark.parametrize(
    ("instructions", "names"),
    [
        (b"\x80\x04" + OS + X + STACK, ["os.x"]),
        (b"\x80\x04" + OS + b"\x94" + X + b"\x94" + STACK, ["os.x"]),
        *(
            (b"\x80\x04" + text("a") + put + b"0" + OS + other + b"0" + X + get + b"0" + back + X + STACK, ["os.x"])
            for put, other, get, back in (
                (b"\x94", b"\x94", b"h\0", b"h\1"),
                (b"q\7", b"q\x08", b"h\7", b"h\x08"),
                (b"r\0\1\0\0", b"r\0\2\0\0", b"j\0\1\0\0", b"j\0\2\0\0"),
                (b"p10\n", b"p11\n", b"g10\n", b"g11\n"),
            )
        ),
        (b"\x80\x04" + OS + b"2" + STACK, ["os.os"]),
        (b"\x80\x04" + OS + X + b"(0" + STACK, ["os.x"]),  # a mark that is popped
        (b"\x80\x04" + OS + b"(" + text("a") + b"t0" + X + STACK, ["os.x"]),
        (b"\x80\x04" + OS + b"(" + text("a") + b"1" + X + STACK, ["os.x"]),
        (b"\x80\x04" + OS + b"((" + text("a") + b"tt0" + X + STACK, ["os.x"]),
        (b"\x80\x04" + OS + text("a") + text("b") + b"\x860" + X + STACK, ["os.x"]),
        (b"\x80\x04" + OS + b"](" + text("a") + b"e0" + X + STACK, ["os.x"]),
        *(
            (b"\x80\x04" + push + X + STACK, ["os.x"])
            for push in (b"X\2\0\0\0os", b"\x8d\2" + b"\0" * 7 + b"os", b"Vos\n", b"S'os'\n", b"T\2\0\0\0os", b"U\2os")
        ),
        (b"\x80\x04N" + X + STACK, ["a global with a computed name"]),
        (b"\x80\x04" + OS + b"N" + STACK, ["a global with a computed name"]),
        (b"\x80\x04" + OS + b"K\1" + STACK, ["a global with a computed name"]),
        (b"\x80\x02\x82\x05.", ["copyreg extension 5"]),
        (b"\x80\x02\x83\x05\1.", ["copyreg extension 261"]),
        (b"\x80\x02\x84\x05\0\1\0.", ["copyreg extension 65541"]),
        (b"cos\nsystem\n.", ["os.system"]),
        (b"(ios\nsystem\n.", ["os.system"]),
        (b"c__builtin__\neval\n.", ["builtins.eval"]),
        (b"ccopy_reg\n_reconstructor\n.", ["copyreg._reconstructor"]),
        (b"cos\na b\n.", ["os.a b"]),
        (b"\x80\x02cb\nb\n.\x80\x02ca\na\n.\x80\x02ca\na\n.", ["a.a", "b.b"]),
        (b"\x80\x02cb\nb\n.ca\na\n.", ["b.b"]),  # what follows is none
        (b"\x80\x02N." * 15 + EVAL, ["builtins.eval"]),
        (b"\x80\x02N." * 16 + EVAL, []),
        (pickle.dumps(OrderedDict(a=np.zeros(2)), 4), ["numpy.ndarray", "numpy.core.multiarray._reconstruct"]),
    ],
)
def test_what_a_pickle_names(instructions: bytes, names: list[str]) -> None:
    found = [name.replace("numpy._core", "numpy.core") for name in foreign_globals(io.BytesIO(instructions), Budget())]
    assert sorted(found) == sorted(names)


@pytest.mark.parametrize(
    "instructions",
    [
        b"\x80\x04" + X + b"\x86.",
        b"\x80\x040.",
        b"\x80\x04t.",
        b"\x80\x04h\5.",
        b"\x80\x04\x93.",
        b"\x80\x042.",
        b"\x80\x04\x94.",
    ],
)
def test_instructions_that_make_no_sense(instructions: bytes) -> None:
    with pytest.raises(UnreadablePickle):
        foreign_globals(io.BytesIO(instructions), Budget())


def test_the_work_on_pickles_is_bounded() -> None:
    assert Budget() == Budget(5_000_000, 268_435_456)
    assert foreign_globals(io.BytesIO(EVAL), Budget(instructions=3)) == ["builtins.eval"]
    told = "too many pickles in this folder to check"
    with pytest.raises(UnreadablePickle, match=told):
        foreign_globals(io.BytesIO(EVAL), Budget(instructions=2))
    whole = archive(a_dot_pkl=EVAL)
    # what is read to tell what it is counts too
    assert archive_globals(io.BytesIO(whole), Budget(unpacked=2 * len(EVAL))) == (["builtins.eval"], [])
    with pytest.raises(UnreadablePickle, match=told):
        archive_globals(io.BytesIO(whole), Budget(unpacked=2 * len(EVAL) - 1))
    monstrous = archive(a_dot_npy=b"\x93NUMPY\x02\0" + MAX_HEADER.to_bytes(4, "little") + b" " * MAX_HEADER)
    assert archive_globals(io.BytesIO(monstrous), Budget(unpacked=12 + MAX_HEADER)) == ([OBJECTS], [])
    with pytest.raises(UnreadablePickle, match=told):
        archive_globals(io.BytesIO(monstrous), Budget(unpacked=12 + MAX_HEADER - 1))
    large = io.BytesIO()
    format_.write_array(large, np.zeros(10_000))
    assert archive_globals(io.BytesIO(archive(a_dot_npy=large.getvalue())), Budget(unpacked=4096)) == ([], [])


def test_members_of_archives() -> None:
    members = {
        "a__b_dot_txt": b"x",
        "c_dot_pkl": EVAL,
        "d": b"\x80\x02cos\nsystem\n.",
        "e_dot_npy": OBJECT_ARRAY.getvalue(),
    }
    assert archive_globals(io.BytesIO(archive(**members)), Budget()) == (
        sorted([OBJECTS, "builtins.eval", "os.system"]),
        [],
    )
    assert archive_globals(io.BytesIO(archive(a=CUT, a__code__x_dot_pyc=b"")), Budget()) == ([], [])  # a tensor's bytes
    assert archive_globals(io.BytesIO(archive(a__code__x_dot_py=EVAL)), Budget()) == ([], ["a/code/x.py"])
    with pytest.raises(UnreadablePickle, match="exhausted"):
        archive_globals(io.BytesIO(archive(a_dot_pkl=CUT)), Budget())


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize(
    ("dtype", "objects"),
    [
        ("f4", False),
        ("O", True),
        ([("a", "f4"), ("b", "i8", 2)], False),
        ([("a", "f4"), ("b", "O")], True),
        ([("Only", "f4")], False),
        ([("a", [("b", "O")])], True),
        ([("a", "O", 2)], True),
    ],
)
def test_arrays_of_objects_are_told_by_their_header(version: tuple[int, int], dtype: Any, objects: bool) -> None:
    file = io.BytesIO()
    format_.write_array(file, np.zeros(1, dtype), version, allow_pickle=True)
    file.seek(0)
    assert holds_objects(file) is objects


@pytest.mark.parametrize(("length", "objects"), [(MAX_HEADER, False), (MAX_HEADER + 1, True)])
def test_a_header_of_monstrous_size_is_not_read(length: int, objects: bool) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }".ljust(length - 1) + b"\n"
    assert holds_objects(io.BytesIO(b"\x93NUMPY\x02\0" + length.to_bytes(4, "little") + header)) is objects
    assert holds_objects(io.BytesIO(b"\x93NUMPY\x01\0\x04\0{1}\n"))
    assert holds_objects(io.BytesIO(b"\x93NUMPY\x01\0\xff\0{'descr'"))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("torch._utils._rebuild_tensor_v2", True),
        ("torch.FloatStorage", True),
        ("torch.cuda.HalfStorage", True),
        ("torch.bfloat16", True),
        ("torch.nn.modules.conv.Conv2d", True),
        ("ultralytics.nn.tasks.DetectionModel", True),
        ("ultralytics.utils.loss.v8DetectionLoss", True),
        ("collections.OrderedDict", True),
        ("numpy._core.multiarray.scalar", True),
        ("builtins.getattr", True),
        ("builtins.eval", False),
        ("torch.load", False),
        ("torch.nn.modules.conv.load", False),
        ("torch.FloatStorage.x", False),
        ("xtorch.FloatStorage", False),
    ],
)
def test_layers_tensors_and_plain_data_are_known(name: str, known: bool) -> None:
    assert is_known(name) is known


def test_how_pickles_begin() -> None:
    assert [is_pickle(bytes([0x80, n])) for n in (1, 2, 5, 6)] == [False, True, True, False]
    assert may_be_pickle(b"(lp0", ".pkl")
    assert not may_be_pickle(b"(lp0", ".txt")
    assert not may_be_pickle(b"x", ".pkl")


def test_a_trigger_among_the_captions_refuses_a_catalogue_and_no_other_folder(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "captions.sqlite")) as db:
        db.executescript("CREATE TABLE a(b); CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM a; END;")
    assert inspect_folder(tmp_path).verdict == "usable"
    (tmp_path / "catalogue.json").write_text("{}")
    report = inspect_folder(tmp_path)
    (finding,) = [one for one in report.findings if one.kind == "database"]
    assert (finding.place, finding.what, finding.refused) == ("captions.sqlite", "it has a trigger 't'", True)
    assert report.verdict == "refused"
