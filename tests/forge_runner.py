"""Forges copies of a catalogue, with right hashes, and uses each in a process that may be lost.

python tests/forge_runner.py CATALOGUE PHOTO SCRATCH [--count N] [--seed S] [--only K ...]

One line of JSON for a trial that went wrong, and a last one with the counts. A trial is right where
every command gives an answer or a refusal of ours, within the limits of time and memory, and
nothing from outside the catalogue comes out.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import struct
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import command_line
import warm  # noqa: F401
from PIL import Image

from fashionrec.common.files import dump_json
from fashionrec.store import generations

#: Seconds for one trial of all commands, and MiB that its process may hold.
LIMIT, MEBIBYTES = 60, 1024
#: What lies outside the catalogue, in files that forged names lead to.
CANARY = "canary-5f1d0c"

_LONG = "x" * 20_000
WEIRD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        3,
        2**31,
        2**63 - 1,
        2**63,
        -(2**63),
        10**30,
        0.5,
        -0.0,
        1e308,
        1e-300,
        float("nan"),
    ),
    *(
        float("inf"),
        "",
        "0",
        "auto",
        "\x1b]52;c;AAAA\x07",
        "\u202e",
        "a\nb",
        "\x00",
        "\ud800",
        _LONG,
        "=1+1",
        "셔츠",
        ".",
    ),
    *(
        "..",
        "../..",
        "../../canary.txt",
        "/etc/passwd",
        "segments",
        "C:\\x",
        "a/b",
        [],
        {},
        [None],
        {"a": 1},
        [[1, 2]] * 3,
    ),
    *([1.0] * 4, ["x"], {"": ""}, [[[]]], {"path": "../canary.txt"}),
)


def reseal(root: Path) -> None:
    """Make every size and hash right again, as somebody who forges a catalogue would."""
    pointer = json.loads((root / generations.POINTER).read_text())
    folder = root / "generations" / str(pointer.get("generation"))
    manifest = json.loads((folder / generations.MANIFEST).read_text())
    files = manifest.get("files")
    for name, entry in files.items() if isinstance(files, dict) else ():
        if isinstance(entry, dict):
            with suppress(OSError, ValueError):
                data = (root / name).read_bytes()
                entry.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    index = manifest.get("index")
    if isinstance(index, dict) and index.get("path"):
        with suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
            data = (root / index["path"] / "index.faiss").read_bytes()
            index["bytes"] = len(data)
            index["head"]["sha256"] = hashlib.sha256(data[: index["head"]["bytes"]]).hexdigest()
    (folder / generations.MANIFEST).write_text(json.dumps(manifest))
    pointer["manifest_sha256"] = hashlib.sha256((folder / generations.MANIFEST).read_bytes()).hexdigest()
    (root / generations.POINTER).write_text(dump_json(pointer))


def make(photos: Path, root: Path) -> None:
    """A catalogue of a table of products, with several segments, captions, and an index where FAISS
    makes one.
    """
    tiny = Path(__file__).parent / "data" / "tiny"
    names = sorted(path.stem for path in photos.glob("*.jpg"))
    table = photos / "products.csv"
    options = ("--embedder", tiny / "embedder", "--detector", tiny / "detector", "--index", root)
    for some in (names[:3], names):
        rows = "".join(f"{name}.jpg,{name},{n + 1},brand {n % 2}\n" for n, name in enumerate(some))
        table.write_text(f"image,product_id,price,brand\n{rows}")
        _run("build-index", table, *options)
    _run("caption", "--index", root, "--captioner", "local")
    _run("catalogue", "reindex", root, "--index-type", "hnsw", "--set", "index.exact_below=0")


def _run(*words: object) -> None:
    done = command_line.invoke(words)
    assert done.exit_code == 0, done.output + done.stderr


def _mutate(value: Any, rng: random.Random) -> str:
    """Change one thing somewhere in a JSON value; returns where."""
    here: list[tuple[Any, Any, str]] = []

    def walk(node: Any, path: str) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            here.append((node, key, f"{path}/{str(key)[:60]}"))
            if isinstance(node[key], (dict, list)):
                walk(node[key], f"{path}/{str(key)[:60]}")

    walk(value, "")
    node, key, path = rng.choice(here)
    kind = rng.choice(["value", "value", "value", "number", "delete", "key"])
    if kind == "number" and isinstance(node[key], (int, float)):
        node[key] = rng.choice(
            [node[key] + 1, node[key] - 1, -node[key], node[key] * 1_000_000, node[key] / 2, str(node[key])]
        )
    elif kind == "delete":
        del node[key]
    elif kind == "key" and isinstance(node, dict):
        node[rng.choice(["", "..", "../canary.txt", "x" * 300, "a\x1b[2J"])] = node.pop(key)
    else:
        node[key] = rng.choice(WEIRD)
    return f"{kind} {path} -> {repr(node.get(key) if isinstance(node, dict) else None)[:60]}"


def _json(path: Path, rng: random.Random) -> str:
    document = json.loads(path.read_text())
    told = [_mutate(document, rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    path.write_text(json.dumps(document))
    return f"{path.name}: {'; '.join(told)}"


def _served(root: Path) -> Path:
    found = sorted((root / "generations").iterdir())
    return found[-1]


def forge_manifest(root: Path, rng: random.Random) -> str:
    return _json(_served(root) / generations.MANIFEST, rng)


def forge_pointer(root: Path, rng: random.Random) -> str:
    return _json(root / generations.POINTER, rng)


def forge_report(root: Path, rng: random.Random) -> str:
    return _json(_served(root) / generations.REPORT, rng)


def forge_bundle(root: Path, rng: random.Random) -> str:
    path = rng.choice(sorted(root.glob("bundles/*/bundle.json")))
    return f"{path.parent.name}: {_json(path, rng)}"


def forge_bundle_file(root: Path, rng: random.Random) -> str:
    return _bytes(rng.choice([one for one in sorted(root.glob("bundles/*/*")) if one.name != "bundle.json"]), rng)


def forge_measured(root: Path, rng: random.Random) -> str:
    path = root / "measured.json"
    if not path.exists():
        path.write_text(json.dumps({"match_photo": {"generation": "000001", "curve": [[0.1, 0.2]]}}))
    return _json(path, rng)


def _sqlite(root: Path, rng: random.Random) -> Path:
    return rng.choice(
        [path for name in (generations.ITEMS, generations.CHANGES) if (path := _served(root) / name).exists()]
    )


def forge_rows(root: Path, rng: random.Random) -> str:
    """Other values in some rows: constraints are those of the schema, so what it forbids is written
    around it.
    """
    db = sqlite3.connect(_sqlite(root, rng), isolation_level=None)
    told = []
    try:
        for _ in range(rng.choice([1, 1, 2, 5])):
            table = rng.choice(
                ["photos", "garments", "entries", "items", "captions", "caption_words", "arrays", "gone_items"]
            )
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            column = rng.choice(columns)
            value = rng.choice(WEIRD)
            if isinstance(value, (list, dict)) or (column in ("metadata", "attributes") and rng.random() < 0.7):
                value = json.dumps(rng.choice([value, {"a": value}, {"name": value, "price": value}]))
            if isinstance(value, int) and abs(value) > 2**63 - 1:
                value = float(value)
            if isinstance(value, str) and rng.random() < 0.1:
                value = value.encode("utf-8", "replace") + b"\xff"
            value = value.replace("\ud800", "?") if isinstance(value, str) else value
            where = (
                "" if rng.random() < 0.3 else f" WHERE rowid IN (SELECT rowid FROM {table} ORDER BY random() LIMIT 2)"
            )
            where = "" if table == "photos" else where
            cast = "CAST(? AS TEXT)" if isinstance(value, bytes) and rng.random() < 0.5 else "?"
            with suppress(sqlite3.Error):
                db.execute(f"UPDATE {table} SET {column} = {cast}{where}", (value,))
                told.append(f"{table}.{column} = {repr(value)[:60]}")
    finally:
        db.close()
    return f"rows: {'; '.join(told)}"


def forge_many_rows(root: Path, rng: random.Random) -> str:
    db = sqlite3.connect(_sqlite(root, rng))
    table = rng.choice(["garments", "entries", "items", "captions", "arrays", "arrays", "arrays"])
    how = rng.choice(["delete", "halve", "shuffle"])
    with suppress(sqlite3.Error):
        if how == "delete":
            db.execute(f"DELETE FROM {table}")
        elif how == "halve":
            db.execute(f"DELETE FROM {table} WHERE rowid % 2")
        elif table == "arrays":
            for row in db.execute("SELECT rowid, content FROM arrays").fetchall():
                block = bytearray(row[1])
                for _ in range(3):
                    if block:
                        block[rng.randrange(len(block))] = rng.randrange(256)
                db.execute("UPDATE arrays SET content = ? WHERE rowid = ?", (bytes(block), row[0]))
        else:
            db.execute(
                "UPDATE garments SET row = row + 1000000, thumb_offset = thumb_offset * 1000, thumb_size = 50000000000"
            )
    db.commit()
    db.close()
    return f"{how} {table}"


def forge_schema(root: Path, rng: random.Random) -> str:
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT "
    tables = {
        "photos": "i AS sha256, 1 AS width, 1 AS height, '' AS build_key",
        "captions": "i AS garment_no, 'a' AS caption_en, 'b' AS caption_ko, '{}' AS attributes, '' AS embedding_text,"
        " 'local' AS captioner, NULL AS segment, NULL AS row",
        "entries": "i AS entry_no, 'a.jpg' AS image, '/' AS base, 'p' AS product_id, 'x' AS photo, '{}' AS metadata",
        "items": "i AS item_no, i AS item_id, i AS entry_no, i AS garment_no, 'p' AS product_id, 0 AS worn_with, 'w' AS words",
    }
    table = rng.choice(sorted(tables))
    statement = rng.choice(
        [
            f"DROP TABLE {table}; CREATE VIEW {table} AS {endless}{tables[table]} FROM n",
            "CREATE TRIGGER t AFTER INSERT ON items BEGIN DELETE FROM captions; END",
            "CREATE TRIGGER t AFTER UPDATE ON entries BEGIN SELECT writefile('x', 'y'); END",
            f"DROP TABLE {table}",
            f"ALTER TABLE {table} ADD COLUMN extra AS (1)",
            "CREATE INDEX i ON entries (json_extract(metadata, '$.a'))",
            "CREATE VIRTUAL TABLE item_text USING fts5 (words, content='entries')",
            "UPDATE arrays SET dtype = 'f8' WHERE kind IN ('codes', 'numbers', 'counts', 'positions')",
            "UPDATE arrays SET size = 20 * length(content)",
            "UPDATE arrays SET part = part + 1000000000000",
            "UPDATE arrays SET owner = 'column:name', kind = 'texts' || rowid WHERE kind = 'codes'",
            "PRAGMA user_version = 2",
            "PRAGMA user_version = 4",
            "PRAGMA application_id = 1",
            f"DROP TABLE {table}; CREATE TABLE {table} (a, b, c)",
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 2 WHERE rootpage > 2",
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'TEXT', 'BLOB')",
            "CREATE TABLE sqlite_x (a); ",
        ]
    )
    db = sqlite3.connect(_sqlite(root, rng))
    with suppress(sqlite3.Error):
        db.executescript(statement)
    db.close()
    return f"schema: {statement[:80]}"


def _bytes(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    kind = rng.choice(["head", "flips", "truncate", "zeros", "ones", "append", "empty", "number"])
    at = rng.randrange(max(1, min(len(data), 200)))
    if kind == "head":
        data[at : at + 1] = rng.randbytes(1)
    elif kind == "number":
        data[at : at + 8] = struct.pack("<q", rng.choice([0, -1, 2**62, 2**40, 2**31, 5, 1]))
    elif kind == "flips":
        for _ in range(20):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == "truncate":
        del data[rng.randrange(len(data)) :]
    elif kind in ("zeros", "ones"):
        data[at : at + 64] = (b"\0" if kind == "zeros" else b"\xff") * 64
    elif kind == "append":
        data += rng.randbytes(100)
    else:
        data.clear()
    path.write_bytes(bytes(data))
    return f"{path.parent.name}/{path.name}: {kind} at {at}"


def forge_sqlite_bytes(root: Path, rng: random.Random) -> str:
    return _bytes(_sqlite(root, rng), rng)


def forge_vectors_bytes(root: Path, rng: random.Random) -> str:
    return _bytes(rng.choice(sorted(root.glob("segments/*/vectors.faiss"))), rng)


def forge_index_bytes(root: Path, rng: random.Random) -> str:
    found = sorted(root.glob("indexes/*/index.faiss"))
    return _bytes(rng.choice(found), rng) if found else forge_vectors_bytes(root, rng)


def forge_vectors(root: Path, rng: random.Random) -> str:
    """A segment or an index of another kind, size or content, as FAISS itself writes it."""
    import faiss
    import numpy as np

    path = rng.choice(sorted([*root.glob("segments/*/vectors.faiss"), *root.glob("indexes/*/index.faiss")]))
    opened = faiss.read_index(str(path))
    count, dim = int(opened.ntotal), int(opened.d)
    factory = rng.choice(
        ["Flat", "HNSW8,Flat", "IDMap,Flat", "IDMap2,Flat", "PCA2,Flat", "SQ8", "SQfp16", "IVF2,Flat", "LSH", "L2"]
    )
    size = rng.choice([count, count, count, 0, count + 5, max(1, count - 1)])
    wide = rng.choice([dim, dim, dim, 4, dim * 2])
    metric = faiss.METRIC_L2 if rng.random() < 0.2 else faiss.METRIC_INNER_PRODUCT
    if factory in ("L2", "LSH"):  # FAISS makes an LSH index for no other metric
        factory, metric = factory.replace("L2", "Flat"), faiss.METRIC_L2
    made = faiss.index_factory(wide, factory, metric)
    vectors = np.random.default_rng(rng.randrange(1000)).normal(size=(max(size, 40), wide)).astype(np.float32)
    vectors *= rng.choice([1.0, 1.0, 0.0, 1e30, float("nan"), float("inf")])
    with suppress(RuntimeError):
        made.train(np.nan_to_num(vectors, posinf=1, neginf=-1))
    with suppress(RuntimeError):
        if size:
            if "IDMap" in factory:
                made.add_with_ids(vectors[:size], np.arange(size) * 1_000_003 - 7)
            else:
                made.add(vectors[:size])
    faiss.write_index(made, str(path))
    return f"{path.parent.name}/{path.name}: {factory} {size} x {wide} metric {metric}"


def forge_thumbnails(root: Path, rng: random.Random) -> str:
    path = rng.choice(sorted(root.glob("segments/*/thumbnails.bin")))
    size = path.stat().st_size
    kind = rng.choice(["eps", "png", "huge", "zeros", "empty", "noise"])
    if kind == "eps":
        data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run\n".ljust(size, b" ")
    elif kind == "png":
        out = io.BytesIO()
        Image.new("RGB", (8, 8)).save(out, "PNG")
        data = out.getvalue().ljust(size, b"\0")
    elif kind == "huge":  # a JPEG that says it is 65,535 pixels wide and high
        out = io.BytesIO()
        Image.new("RGB", (8, 8)).save(out, "JPEG")
        head = out.getvalue()
        at = head.index(b"\xff\xc0") + 5
        data = (head[:at] + b"\xff\xff\xff\xff" + head[at + 4 :]).ljust(size, b"\0")
    else:
        data = {"zeros": bytes(size), "empty": b"", "noise": rng.randbytes(size)}[kind]
    path.write_bytes(data)
    return f"{path.parent.name}/{path.name}: {kind}"


def forge_beside(root: Path, rng: random.Random) -> str:
    """Files that a catalogue may bring with it, and that no manifest names."""
    name = rng.choice(
        ["work/journal.sqlite", "work/seen.sqlite", "captions.sqlite", "builds.jsonl", ".lock", "measured.json"]
    )
    path = root / name
    path.parent.mkdir(exist_ok=True)
    if path.exists() and path.stat().st_size and rng.random() < 0.5:
        return _bytes(path, rng)
    kind = rng.choice(["noise", "sqlite", "deep", "view"])
    if kind in ("sqlite", "view"):
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE photos (a, b)" if kind == "sqlite" else "CREATE VIEW photos AS SELECT 1 AS sha256")
        db.close()
    else:
        path.write_bytes(rng.randbytes(3_000) if kind == "noise" else b"[" * 100_000)
    return f"{name}: {kind}"


FORGERIES: tuple[Callable[[Path, random.Random], str], ...] = (
    *(forge_manifest,) * 6,
    *(forge_rows,) * 6,
    *(forge_bundle,) * 3,
    *(forge_schema,) * 3,
    *(forge_vectors,) * 3,
    *(forge_pointer, forge_report, forge_bundle_file, forge_measured, forge_many_rows, forge_sqlite_bytes),
    *(forge_vectors_bytes, forge_index_bytes, forge_thumbnails, forge_beside),
)


def use(root: Path, photo: Path, out: Path) -> list[list[Any]]:
    """Return what each command gave: its words, exit code, and what it printed that it should not
    have.
    """
    index = ("--index", root, "--set", "project.threads=1")
    (out / "table.csv").write_text("image,product_id,price\nred-blue.jpg,red-blue,3\n")
    commands: list[tuple[Any, ...]] = [
        ("catalogue", "verify", root),
        ("catalogue", "show", root),
        ("query", photo, *index, "--json"),
        ("query", "--text", "빨간 shirt", *index, "--html", out / "page.html"),
        ("query", photo, *index, "--html", out / "photo.html", "--explain", "--goes-with", "-k", "1000000000"),
        ("query", photo, *index, "--where", "price < 5", "--csv", out / "hits.csv"),
        ("catalogue", "export", out / "export", *index),
        ("catalogue", "update", out / "table.csv", *index),
        ("catalogue", "compact", root),
        ("catalogue", "reindex", root),
        ("catalogue", "add", photo.parent, *index),
    ]
    ended: list[list[Any]] = []
    for words in commands:
        done = command_line.invoke(words)
        told = done.output + done.stderr
        wrong = ""
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            wrong = "".join(traceback.format_exception(done.exception))[-1500:]
        elif "should not happen" in told or "Traceback" in told:
            wrong = told[-1500:]
        elif done.exit_code not in (0, 2, 3, 75):
            wrong = f"exit {done.exit_code}: {told[-500:]}"
        elif any(sign in told for sign in ("\x1b", "\x07", "\u202e")):
            wrong = f"control characters: {told[-500:]!r}"
        if CANARY in told:
            wrong = f"a canary: {told[-500:]}"
        ended.append([" ".join(map(str, words[:2])).replace(str(root), "ROOT"), done.exit_code, wrong])
    for path in out.rglob("*"):
        if path.is_file() and CANARY.encode() in path.read_bytes():
            ended.append([f"a canary is in {path.name}", 0, "leak"])
    return ended


def forked(work: Callable[[], Any]) -> tuple[Any, int]:
    """Return what some work gave in a process of its own (a text where it was lost), and that
    process's MiB.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(LIMIT)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 2)
        resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
        try:
            outcome = work()
        except BaseException:
            outcome = traceback.format_exc()[-1500:]
        with os.fdopen(write, "w") as pipe:
            json.dump(outcome, pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}", usage.ru_maxrss >> 10
    return json.loads(text), usage.ru_maxrss >> 10


def trial(catalogue: Path, photo: Path, scratch: Path, seed: int, forge: bool = True) -> dict[str, Any]:
    """Forge a copy and use it; ``wrong`` says what is not as it should be."""
    rng = random.Random(seed)
    shutil.rmtree(scratch, ignore_errors=True)
    root, out = scratch / "shop" / "catalogue", scratch / "out"
    out.mkdir(parents=True)
    shutil.copytree(catalogue, root)
    canaries = [scratch / "canary.txt", scratch / "shop" / "canary.txt", root / ".." / "canary.jpg"]
    for path in canaries:
        path.write_text(CANARY * 100)
    told = []
    if forge:
        for _ in range(rng.choice([1, 1, 1, 2])):
            # a second forgery may find a file that the first has made unreadable
            with suppress(sqlite3.Error, OSError, ValueError, RuntimeError, LookupError, StopIteration):
                told.append(rng.choice(FORGERIES)(root, rng))
        with suppress(OSError, ValueError, AttributeError, KeyError):
            reseal(root)
    ended, peak = forked(lambda: use(root, photo, out))
    wrong = [ended] if isinstance(ended, str) else [one for one in ended if one[2]]
    if peak > MEBIBYTES:
        wrong.append(f"{peak} MiB")
    if any(path.read_text() != CANARY * 100 for path in canaries):
        wrong.append("a canary is changed")
    codes = [] if isinstance(ended, str) else [one[1] for one in ended]
    return {"seed": seed, "forged": told, "codes": codes, "peak": peak, "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+")
    options = parser.parse_args()
    os.environ["FASHIONREC_BUILD__WORKERS"] = "1"  # starting processes takes longer than a trial's few photos
    command_line.whole()
    honest = trial(options.catalogue, options.photo, options.scratch, 0, forge=False)
    assert not honest["wrong"], honest
    assert set(honest["codes"]) == {0}, honest
    seeds = options.only or range(options.seed, options.seed + options.count)
    counts: Counter[str] = Counter()
    for seed in seeds:
        done = trial(options.catalogue, options.photo, options.scratch, seed)
        counts["trials"] += 1
        counts["refused" if set(done["codes"]) & {2, 3} else "answered"] += 1
        if done["wrong"] or options.only:
            counts["wrong"] += bool(done["wrong"])
            sys.stdout.write(json.dumps(done, ensure_ascii=True) + "\n")
            sys.stdout.flush()
    sys.stdout.write(json.dumps(dict(counts)) + "\n")


if __name__ == "__main__":
    main()
