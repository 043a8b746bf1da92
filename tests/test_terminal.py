"""Test what other people's words can do to a terminal: nothing.

Hostile titles, names and answers through the real commands.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest
import yaml
from conftest import TINY, Result, two_halves
from openai_server import OpenAIServer, error
from systems import posix_only
from test_runs import finished
from test_text import acts

from fashionrec.cli.output import Output, guard_streams
from fashionrec.common.text import visible

Cli = Callable[..., Result]
MODELS = ("--detector", TINY / "detector", "--embedder", TINY / "embedder")
#: The clipboard, the window's title, a cleared screen, C1, bidi, hidden and separating characters,
#: and a line of its own.
EVIL = (
    "T\x1b]52;c;cm0=\x07\x1b]0;x\x1b\\\x1b[2J\x9b2J\x9d0;x\x9c\u202egpj\u2066\u200f\u061c\u2028\x85\x7f\u200b\U000e0041"
    "[bold][link=https://evil.example]:smile:\nerror: forged\r\tend 빨간"
)
NAME = EVIL.replace("/", "").replace("\\", "")  # of a file
ROWS = (
    {"image": "photos/red-blue.jpg", "product_id": f"p{EVIL}", "title": EVIL, "brand": EVIL, "url": f"javascript:{EVIL}"},
    {"image": "photos/green.jpg", "product_id": "-rf", "title": "=cmd|' /C calc'!A0", "price": EVIL, EVIL: EVIL},
    {"image": "photos/grey.jpg", "product_id": "grey", "title": "half \ud83d\ude00 초록 원피스", "url": "https://example.org/?q=1"},
)  # fmt: skip
PTY = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")  # what rich itself writes: colours, and moves within its bar


def harmless(raw: str | bytes, *, terminal: bool = False, block: bool = False) -> str:
    """Check what was written; returns it as text.

    A block keeps the newlines and tabs of what it was given.
    """
    data = raw if isinstance(raw, bytes) else raw.encode()
    if terminal:
        data = PTY.sub(b"", data).replace(b"\r\n", b"\n").replace(b"\r", b"")
    text = data.decode()
    assert "�" not in text
    assert {hex(ord(character)) for character in text if acts(character)} <= ({"0xa", "0x9"} if block else {"0xa"})
    assert block or not [line for line in text.splitlines() if line.startswith("error: forged")]
    return text


def spoken(done: Result, code: int = 0) -> str:
    assert done.code == code, (done.out, done.err)
    return harmless(done.out) + harmless(done.err)


@pytest.fixture
def shop(cli: Cli, photos: Path, tmp_path: Path) -> Path:
    (tmp_path / "shop.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    done = cli("build-index", "shop.jsonl", "--index", "c", *MODELS)
    spoken(done)
    return tmp_path / "c"


def in_process(folder: Path, *arguments: object, terminal: bool = False, **env: str) -> bytes:
    """A command in a process of its own: its standard output and error together, from a pipe or a
    terminal of 80 columns.
    """
    command = [sys.executable, "-m", "fashionrec", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **env}
    environment.pop("OPENAI_API_KEY", None)
    if not terminal:
        return subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False
        ).stdout  # fmt: skip
    ours, theirs = os.openpty()
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
    ) as process:
        os.close(theirs)
        data = b""
        try:
            while block := os.read(ours, 1 << 16):
                data += block
        except OSError:  # the other end is closed
            pass
        process.wait(120)
    os.close(ours)
    return data


def test_a_query_prints_what_it_finds_and_nothing_acts(cli: Cli, shop: Path) -> None:
    asked = ("query", "photos/red-blue.jpg", "--index", "c")
    told = spoken(cli(*asked, "--explain"))
    assert visible(EVIL) in told
    assert r"\nerror: forged" in told
    assert "초록 원피스" in told
    whole = cli(*asked, "--json")
    harmless(whole.out)
    titles = {hit["metadata"]["title"] for garment in whole.document["garments"] for hit in garment["hits"]}
    assert titles == {row["title"] for row in ROWS} - {"half \ud83d\ude00 초록 원피스"} | {"half 😀 초록 원피스"}
    lines = cli(*asked, "--jsonl")
    harmless(lines.out)
    assert json.loads(lines.out)["garments"] == whole.document["garments"]
    assert "'=cmd" in harmless(cli(*asked, "--csv", "-").out.replace("\r\n", "\n"), block=True)
    for arguments in (
        ("query", "--text", EVIL, "--index", "c"),
        ("query", "photos/red-blue.jpg", "--index", "c", "--like", f"p{EVIL}"),
        ("query", "--like", f"p{EVIL}", "--index", "c", "--where", f"brand = '{EVIL}'"),
    ):
        done = cli(*arguments)
        harmless(done.out)
        harmless(done.err)
    spoken(cli("query", "--like", f"?{EVIL}", "--index", "c"), 2)
    harmless(cli("query", "photos/red-blue.jpg", "--index", "c", "--where", f"{EVIL} = 1").err, block=True)
    spoken(cli("query", f"{EVIL}.jpg", "--index", "c"), 2)
    spoken(cli("query", "photos/red-blue.jpg", "--index", EVIL), 2)


def test_what_is_said_of_a_catalogue(cli: Cli, shop: Path) -> None:
    for arguments in (
        ("show", "c"),
        ("show", "c", "--json"),
        ("verify", "c"),
        ("list", "."),
        ("show", "c", "--product", "-rf"),
    ):
        done = cli("catalogue", *arguments)
        harmless(done.out)
        harmless(done.err)
    told = spoken(cli("catalogue", "show", "c", "--product", f"p{EVIL}"))
    assert "catalogue remove --index c $'pT\\x1b]52" in told
    dash = spoken(cli("catalogue", "show", "c", "--product", "-rf"))
    assert "catalogue remove --index c -- -rf" in dash
    assert cli("catalogue", "remove", "--index", "c", "--", "-rf").code == 0
    spoken(cli("catalogue", "remove", f"?{EVIL}", "--index", "c"), 2)
    spoken(cli("doctor", "--index", "c"))


@posix_only("names of any characters")
def test_names_and_classes_of_a_dataset(cli: Cli, tmp_path: Path) -> None:
    for name in (NAME, "b"):
        two_halves(tmp_path / "d/train/images" / f"{name}.jpg", "red", "white")
        (tmp_path / "d/train/labels").mkdir(exist_ok=True)
        (tmp_path / "d/train/labels" / f"{name}.txt").write_text("0 0.25 0.5 0.4 0.9\n1 0.7 0.5 0.2 0.2\n0 9 \x1b[2J\n")
    document = {"train": "train/images", "val": "train/images", "names": ["top", f"x'; id #{EVIL}"]}
    (tmp_path / "d/data.yaml").write_text(yaml.safe_dump(document))
    refused = spoken(cli("fetch-dataset", "yolo:d", "--out", "o", "--set", "dataset.unknown_class=fail"), 2)
    assert r"--map $'x\'; id #T\x1b]52" in refused
    spoken(cli("fetch-dataset", "yolo:d", "--out", "o", "--set", "dataset.unknown_class=drop"))
    done = cli("dataset", "audit", "d", "--json")
    harmless(done.out)
    for arguments in (("dataset", "audit", "d"), ("dataset", "audit", "d", "--strict"), ("dataset", "audit", "o")):
        done = cli(*arguments)
        harmless(done.out)
        harmless(done.err)
    harmless((done := cli("evaluate", "--weights", TINY / "detector", "--data", "d")).out + done.err)
    spoken(cli("train", f"data=d/data.yaml{EVIL}"), 2)
    spoken(cli("fetch-dataset", f"yolo:{EVIL}", "--out", "o"), 2)


def test_an_evaluation_of_hostile_queries(cli: Cli, shop: Path, tmp_path: Path) -> None:
    rows = [
        {"image": "photos/green.jpg", "product_id": f"p{EVIL}", "category": EVIL},
        {"image": EVIL, "product_id": "grey"},
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for more in ((), ("--json",)):
        done = cli("evaluate", "--index", "c", "--queries", "q.jsonl", *more)
        harmless(done.out)
        harmless(done.err)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_what_a_server_answers(cli: Cli, shop: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")
    monkeypatch.setenv("FASHIONREC_CAPTIONER__RETRIES", "0")
    with OpenAIServer([error(status, EVIL, code=EVIL, param=EVIL)]) as server:
        monkeypatch.setenv("FASHIONREC_CAPTIONER__BASE_URL", server.base_url)
        for arguments in (
            ("photos/red-blue.jpg",),
            ("--index", "c"),
            ("--index", "c", "--status"),
            ("--index", "c", "--json"),
        ):
            done = cli("caption", *arguments, "--captioner", "openai")
            harmless(done.out)
            harmless(done.err)
        assert server.requests


@posix_only("names of any characters")
def test_names_and_figures_of_runs(cli: Cli, tmp_path: Path) -> None:
    classes = {EVIL: {"map50": 0.5, "map50_95": 0.5}}
    for name in ("a", "b"):
        run = finished(tmp_path / "runs/train", name, versions={EVIL: name}, notes={EVIL: {EVIL: [EVIL, name]}})
        run.config["train"][EVIL] = EVIL + name
        run.metrics["per_class"] = classes
        run.save()
    shutil.copytree(tmp_path / "runs/train/a", tmp_path / "runs/train" / NAME)
    shutil.copytree(tmp_path / "runs/train/a", tmp_path / "runs/other" / NAME)
    for arguments in (
        ("list",), ("list", "--json"), ("show", "a"), ("show", "a", "--json"), ("show", EVIL), ("show", NAME),
        ("compare", "a", "b"), ("compare", f"train/{NAME}", "b"), ("promote", f"train/{NAME}"),
    ):  # fmt: skip
        done = cli("runs", *arguments)
        harmless(done.out)
        harmless(done.err)
    assert r"train/T\x1b]52" in cli("runs", "show", NAME).err


def test_settings_options_and_bugs(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump({EVIL: 1}))
    (tmp_path / "value.yaml").write_text(yaml.safe_dump({"query": {"k": EVIL}}))
    (tmp_path / "broken.yaml").write_text("a: [\x1b]\u202e\x9b")
    for file in ("evil.yaml", "value.yaml", "broken.yaml", f"{EVIL}.yaml"):
        spoken(cli("config", "show", "--config", file), 2)
    spoken(cli("config", "show", "--set", f"{EVIL}=1"), 2)
    spoken(cli("config", "show", "--set", f"query.k={EVIL}"), 2)
    harmless(cli("config", "show", "--set", f"query.index={EVIL}").out)
    harmless(cli("config", "show", "--set", f"query.index={json.dumps(EVIL)}", "--json").out)
    for arguments in (
        ("query", "-k", "\x1b]0;x\x07\u202e"),
        ("\x1b[2J",),
        ("query", "--\x9bx"),
        ("runs", "\u202elist"),
    ):
        assert "Error" in spoken(cli(*arguments), 2)
    assert r"argument (\x1b]0;x\x07\u202e)" in spoken(cli("catalogue", "export", "o", "\x1b]0;x\x07\u202e"), 2)

    def bug(*_: object, **__: object) -> None:
        raise RuntimeError(EVIL)

    monkeypatch.setattr(filelock.FileLock, "acquire", bug)
    done = cli("build-index", TINY / "photos", "--index", "c", *MODELS, "--debug")
    assert done.code == 1
    told = harmless(done.err, block=True)
    assert "Traceback" in told
    assert r"RuntimeError: T\x1b]52" in told


@posix_only("names of any characters")
def test_a_terminal_of_eighty_columns(cli: Cli, shop: Path, tmp_path: Path) -> None:
    two_halves(tmp_path / "photos" / f"{NAME}.jpg", "red", "white")
    for arguments in (
        ("query", "photos/red-blue.jpg", "--index", "c"),
        ("query", "photos/red-blue.jpg", "--index", "c", "--csv", "-"),
        ("query", "photos/red-blue.jpg", "--index", "c", "--json"),
        ("build-index", "photos", "--index", "e", *MODELS),
        ("catalogue", "show", "c", "--product", f"p{EVIL}"),
        ("query", "-k", EVIL, "photos/red-blue.jpg"),
    ):
        raw = in_process(tmp_path, *arguments, terminal=True)
        text = harmless(raw, terminal=True)
        assert "\\x1b" in text.replace("\n", "") or "\\u001b" in text or arguments[0] == "build-index"
        assert b"8;" not in b"".join(re.findall(rb"\x1b\][^\x07]*", raw))


def test_names_that_are_not_utf8(cli: Cli, shop: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9\x9b.jpg")
    try:
        shutil.copy(tmp_path / "photos/green.jpg", tmp_path / "photos" / odd)
    except OSError:
        pytest.skip("the file system takes only Unicode")
    asked = ("query", f"photos/{odd}", "--index", "c")
    told = spoken(cli(*asked))
    assert r"query $'photos/caf\xe9\x9b.jpg'" in told
    assert cli(*asked, "--json").document["photo"] == f"photos/{odd}"
    files = ("--csv", "a.csv", "--xlsx", "a.xlsx", "--html", "a.html")
    spoken(cli(*asked, *files))
    built = cli("build-index", "photos", "--index", "e", *MODELS, "--json")
    assert built.code == 3  # one of seven, more than build.max_failures
    assert [(one["image"], one["reason"]) for one in built.document["failures"]] == [(odd, "name")]
    spoken(cli("fetch-dataset", "folder:photos", "--out", "o"))
    told = spoken(cli("fetch-dataset", "folder:photos", "--out", os.fsdecode(b"o\xe9")), 1)
    assert r"o\udce9" in told
    assert "is not UTF-8" in told
    spoken(cli("query", "photos", "--index", "c", "--save-crops", "crops"))
    assert any(path.name.endswith("-caf---0-whole.jpg") for path in (tmp_path / "crops").iterdir())
    raw = in_process(tmp_path, *asked, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert rb"caf\xe9\x9b" in raw
    assert b"UnicodeEncodeError" not in raw
    assert json.loads(
        in_process(tmp_path, *asked, "--json", "--quiet", PYTHONIOENCODING="ascii").split(b"\n}")[0] + b"\n}"
    )


@posix_only("names of any characters")
def test_hidden_characters_do_not_get_into_the_names_of_a_dataset(cli: Cli, tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9"), "a\x1b]0;x\x07", "n\nl", "می\u200cخواهم", "셔츠"]
    for n, name in enumerate(names):
        two_halves(tmp_path / "d/train/images" / f"{name}.jpg", "red", "white", (120 + n, 90))
        (tmp_path / "d/train/labels").mkdir(exist_ok=True)
        (tmp_path / "d/train/labels" / f"{name}.txt").write_text("0 0.25 0.5 0.4 0.9\n0 9 9\n")
    (tmp_path / "d/data.yaml").write_text("train: train/images\nnames: [top]\n")
    spoken(cli("fetch-dataset", "yolo:d", "--out", "o"))
    made = {path.stem for path in (tmp_path / "o").glob("*/images/*")}
    assert made == {"caf-", "a-]0;x-", "n-l", *names[3:]}
    problems = (tmp_path / "o/problems.csv").read_text()
    assert r"train/images/caf\xe9.jpg" in harmless(problems)
    assert len(problems.splitlines()) == 1 + len(names)
    for kind in ("coco", "voc"):
        spoken(cli("dataset", "export", "o", "--to", kind, "--out", kind))
        spoken(cli("fetch-dataset", f"{kind}:{kind}", "--out", f"from-{kind}"))
    spoken(cli("dataset", "audit", "d", "--html", "d.html"))
    (split,) = {path.parent.parent.name for path in (tmp_path / "o").glob("*/images/caf-.jpg")}
    done = cli("evaluate", "--weights", TINY / "detector", "--data", "o", "--split", split, "--html", "e.html")
    spoken(done)


def test_libraries_warnings_and_tracebacks_pass_the_guard(tmp_path: Path) -> None:
    script = (
        "import sys, logging, threading, warnings\n"
        "from fashionrec.cli.output import guard_process\nguard_process()\n"
        f"evil = {EVIL!r}\n"
        "warnings.warn(evil)\nlogging.getLogger('x').warning(evil)\nlogging.basicConfig()\n"
        "logging.getLogger('x').error(evil)\nprint(evil, evil, file=sys.__stderr__)\n"
        "logging.StreamHandler(sys.__stdout__).stream.write(evil)\n"
        "threading.Thread(target=lambda: 1 / 0, name=evil).start()\n"
        "import click\nclick.echo(evil)\nclick.echo(evil, err=True)\n"
        "raise RuntimeError(evil)\n"
    )
    ending = f"import atexit\nfrom fashionrec.__main__ import main\natexit.register(print, {EVIL!r})\nmain()\n"
    command = [sys.executable, "-c", ending, "runs", "list"]
    last = subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=60, check=False)
    assert r"T\x1b]52" in harmless(last.stdout, block=True)
    for encoding in ("utf-8", "ascii"):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, cwd=tmp_path, timeout=60, check=False,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert harmless(done.stdout + done.stderr, block=True).count(r"T\x1b]52") >= 9


def test_a_bar_and_what_is_written_beside_it(tmp_path: Path) -> None:
    script = (
        "import sys, warnings\nfrom fashionrec.cli.output import Output, guard_process\nguard_process()\n"
        f"evil = {EVIL!r}\nout = Output()\n"
        "with out.progress(evil, 'photos') as tick:\n"
        "    tick(1, 3, evil, detail=evil)\n    print('\\x1b]8;;https://evil.example\\x07x', evil)\n    warnings.warn(evil)\n"
        "    tick(3, 3, detail=evil)\n"
        "with out.progress('x') as tick:\n    tick(1, 1, '[red]note[/red] :smile:', detail='[red]detail[/red]')\n"
        "with out.stages() as tell:\n    tell(evil, 'photos', 1, 1)\n"
        "out.table((evil, 'b'), [(evil, '[red]x[/red]')])\n"
    )
    (tmp_path / "fashionrec_script.py").write_text(script)
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "fashionrec_script.py"], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "COLUMNS": "200", "TERM": "xterm-256color"},
    ) as process:  # fmt: skip
        os.close(theirs)
        raw = b""
        try:
            while block := os.read(ours, 1 << 16):
                raw += block
        except OSError:
            pass
    os.close(ours)
    assert process.returncode == 0
    text = harmless(raw, terminal=True, block=True)
    assert b"\x1b]" not in raw
    assert "[link=https://evil.example]:smile:" in text.replace("\n", "")
    for what in ("x", "note", "detail"):
        assert f"[red]{what}[/red]" in text
    assert "[/red] :smile:" in text


def test_alignment_in_a_pipe_is_by_characters(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(("품목", "price"), [("빨간 셔츠", 1), ("a\nb", 22)], right=(1,))
    assert capsys.readouterr().out == "품목     price\n빨간 셔츠      1\na\\nb      22\n"


def test_one_long_cell_does_not_flood_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(("title", "n"), [("x" * 1_000_000, 1), *(("a", n) for n in range(100))])
    printed = capsys.readouterr().out
    assert printed.splitlines()[1] == "x" * 2000 + "…  1"
    assert len(printed) < 102 * 2010
    Output().table(("title",), [("x" * 2000,)])
    assert "…" not in capsys.readouterr().out


def test_the_guard_is_taken_away_again() -> None:
    before = sys.stdout, sys.stderr
    with guard_streams(), guard_streams():
        assert sys.stdout is not before[0]
        with pytest.raises(TypeError):
            sys.stdout.write(b"x")  # type: ignore[arg-type]
        assert not hasattr(sys.stdout, "buffer")
    assert (sys.stdout, sys.stderr) == before
