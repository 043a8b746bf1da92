"""Roboflow through the real package, against a local server: a version fetched, kept and read;
keys; what goes wrong.
"""

import functools
import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from roboflow_server import AUGMENTATION, KEY, OTHER_KEY, PREPROCESSING, README, RoboflowServer, make_zip, settings_for

from fashionrec.config import Config
from fashionrec.dataset.roboflow.api import api_host
from fashionrec.dataset.roboflow.applied import applied, from_metadata, from_readme
from fashionrec.dataset.sources.roboflow import MARKER, damage, fetch, parse_version, read
from fashionrec.errors import Busy, ConfigError, DataError, FashionrecError, MissingExtra

pytest.importorskip("roboflow")

VERSION = "team/garments/3"
FIRST = "train/images/shirt_jpg.rf.0a1b2c3d4e5f60718293a4b5c6d7e8f9.jpg"


def jpeg(colour: str, size: tuple[int, int] = (64, 48)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "JPEG")
    return out.getvalue()


def export() -> dict[str, bytes]:
    """Return what the zip of a version holds: two copies of one photo in train, another
    in valid.
    """
    data = "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['dress', 'top']\n"
    photos = {
        FIRST: "red",
        "train/images/shirt_jpg.rf.ffeeddccbbaa99887766554433221100.jpg": "blue",
        "valid/images/frock_jpg.rf.11112222333344445555666677778888.jpg": "green",
    }
    members = {"README.roboflow.txt": README.encode(), "data.yaml": data.encode()}
    for name, colour in photos.items():
        members[name] = jpeg(colour)
        members[name.replace("images", "labels").replace(".jpg", ".txt")] = b"1 0.5 0.5 0.25 0.5\n"
    return members


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setenv("ROBOFLOW_CONFIG_DIR", str(tmp_path / "nobody-logged-in.json"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[RoboflowServer]:
    with RoboflowServer(make_zip(export())) as running:
        yield running


Settings = Callable[..., Config]


@pytest.fixture
def settings(server: RoboflowServer) -> Settings:
    return functools.partial(settings_for, server)


def kept(store: Path) -> list[str]:
    """Everything below the store but locks."""
    return sorted(p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_a_version_is_three_parts() -> None:
    assert parse_version("team/garments/3") == ("team", "garments", 3)
    for wrong in (
        "team/garments",
        "team/garments/latest",
        "garments/3",
        "a/b/c/4",
        "../x/3",
        "t/../3",
        "a b/c/3",
        "t/p/³",
    ):
        with pytest.raises(DataError):
            parse_version(wrong)


def test_a_version_is_fetched_and_read(server: RoboflowServer, settings: Settings, tmp_path: Path) -> None:
    ticks: list[tuple[int, int]] = []
    source = read(VERSION, tmp_path, settings(), lambda done, total: ticks.append((done, total)))
    folder = tmp_path / VERSION
    assert kept(folder) == sorted([*export(), MARKER])
    assert all((folder / name).read_bytes() == data for name, data in export().items())
    assert source.label == "roboflow:team/garments/3"
    assert source.names == ("dress", "top")
    assert [(image.split, image.boxes[0].label) for image in source.images] == [
        ("train", "top"),
        ("train", "top"),
        ("valid", "top"),
    ]
    shirts = {image.group for image in source.images if "shirt" in image.key}
    assert len(shirts) == 1, "copies of one photo are one group"
    assert source.images[2].group not in shirts
    assert source.already == {
        "upright": True,
        "resize": {"width": 640, "height": 640, "mode": "stretch"},
        "equalize": {"kind": "adaptive"},
        "augment": {"copies": 3, "steps": ["flip", "rotate"]},
    }
    assert source.notes == ()
    assert ticks[-1] == (len(server.archive), len(server.archive))
    assert server.used == {KEY}


def test_a_second_call_asks_nobody_and_needs_no_key(
    server: RoboflowServer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read(VERSION, tmp_path, settings())
    (tmp_path / VERSION / "train" / "labels.cache").write_bytes(b"written by ultralytics")
    os.utime(tmp_path / VERSION / FIRST)  # copied elsewhere: another time, the same bytes
    server.asked.clear()
    monkeypatch.delenv("ROBOFLOW_API_KEY")
    assert read(VERSION, tmp_path, settings()) == first
    assert not server.asked


def half_empty(folder: Path) -> None:
    (folder / MARKER).unlink()
    (folder / FIRST).unlink()


def changed(folder: Path) -> None:
    data = bytearray((folder / FIRST).read_bytes())
    data[-3] ^= 1
    (folder / FIRST).write_bytes(data)
    os.utime(folder / FIRST, ns=(1, 1))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (half_empty, "it is incomplete"),
        (changed, f"1 of 8 files missing or changed, such as {FIRST}"),
        (lambda folder: (folder / FIRST).unlink(), f"1 of 8 files missing or changed, such as {FIRST}"),
        (lambda folder: (folder / "data.yaml").write_text(""), "1 of 8 files missing or changed, such as data.yaml"),
        (lambda folder: (folder / "train/images/mine.jpg").touch(), "1 file added, such as train/images/mine.jpg"),
        (lambda folder: (folder / MARKER).write_text("{}"), "it is incomplete"),
    ],
)
def test_a_copy_that_is_not_whole_is_fetched_again(
    harm: Callable[[Path], object], told: str, server: RoboflowServer, settings: Settings, tmp_path: Path
) -> None:
    folder = fetch(VERSION, tmp_path, settings())
    harm(folder)
    assert damage(folder) == told
    source = read(VERSION, tmp_path, settings())
    assert source.notes == (f"the stored copy is unusable ({told}): downloaded again",)
    assert server.asked["zip"] == 2
    assert damage(folder) is None
    assert kept(tmp_path) == sorted(f"{VERSION}/{name}" for name in [*export(), MARKER])


def test_a_download_that_fails_leaves_the_damaged_copy_in_place(
    server: RoboflowServer, settings: Settings, tmp_path: Path
) -> None:
    folder = fetch(VERSION, tmp_path, settings())
    (folder / FIRST).unlink()
    before = kept(tmp_path)
    server.faults["zip"] = [("cut", 100)]
    with pytest.raises(FashionrecError):
        fetch(VERSION, tmp_path, settings())
    assert kept(tmp_path) == before


def test_cut_half_way_leaves_nothing_and_the_next_call_works(
    server: RoboflowServer, settings: Settings, tmp_path: Path
) -> None:
    server.faults["zip"] = [("cut", len(server.archive) // 2)]
    with pytest.raises(FashionrecError, match="closed the connection") as caught:
        fetch(VERSION, tmp_path, settings())
    assert caught.value.exit_code == 1
    assert "secret-link" not in f"{caught.value} {caught.value.hint}"
    assert kept(tmp_path) == []
    assert damage(fetch(VERSION, tmp_path, settings())) is None


def test_a_cut_download_goes_on_where_it_was(server: RoboflowServer, settings: Settings, tmp_path: Path) -> None:
    server.archive = make_zip({**export(), "large.bin": os.urandom(3 << 20)})
    server.faults["zip"] = [("cut", 1 << 20), ("cut", 10)]
    ticks: list[tuple[int, int]] = []
    folder = fetch(VERSION, tmp_path, settings(retries=2), lambda done, total: ticks.append((done, total)))
    assert damage(folder) is None
    assert server.asked["zip"] == 3
    assert server.sent < len(server.archive) + (1 << 19), "but for a last block, no byte came twice"
    assert {total for _, total in ticks} == {len(server.archive)}


def test_what_can_pass_is_asked_again(server: RoboflowServer, settings: Settings, tmp_path: Path) -> None:
    server.faults = {"project": [(500, {})], "export": ["drop"], "zip": [(503, "busy")]}
    assert damage(fetch(VERSION, tmp_path, settings(retries=1))) is None


def test_an_export_that_is_not_ready_is_waited_for(server: RoboflowServer, settings: Settings, tmp_path: Path) -> None:
    server.faults = {"version": [(200, {"version": {"generating": True, "progress": 0.4, "images": 0}})]}
    with pytest.raises(FashionrecError, match="still preparing team/garments/3"):
        fetch(VERSION, tmp_path, settings(wait=0))
    server.faults = {"export": [(202, {"progress": 0.5})]}
    assert damage(fetch(VERSION, tmp_path, settings())) is None
    assert server.asked["export"] == 2


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("team/garments/9", "has no version 9 of team/garments, or does not show it"),
        ("team/trousers/3", "does not show the project team/trousers: Unsupported get request"),
        ("others/garments/3", "does not show the workspace others"),
    ],
)
def test_an_unknown_name_is_one_line(version: str, told: str, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told) as caught:
        fetch(version, tmp_path, settings())
    assert caught.value.hint
    assert kept(tmp_path) == []


def test_a_wrong_key_is_one_line_without_the_key(
    server: RoboflowServer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", "canaryWrong99x")
    server.echo = "You sent canaryWrong99x\nto us"
    with pytest.raises(DataError, match="does not accept the key: This API key does not exist") as caught:
        fetch(VERSION, tmp_path, settings())
    assert "canary" not in f"{caught.value} {caught.value.hint}"
    assert "You sent *** to us" in str(caught.value)
    assert caught.value.__suppress_context__, "a traceback would show the package's error, and it the key"


@pytest.mark.parametrize("key", ["", "  ", "two words", "a&b=c"])
def test_a_missing_or_odd_key_is_told_before_anything_is_asked(
    key: str, server: RoboflowServer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", key)
    with pytest.raises(DataError, match="ROBOFLOW_API_KEY") as caught:
        fetch(VERSION, tmp_path, settings())
    assert "a&b" not in str(caught.value)
    assert not server.asked


def test_the_key_that_a_login_stored_is_used(
    server: RoboflowServer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored(default: str, **keys: str) -> None:
        workspaces = {name: {"url": name, "name": name, "apiKey": value} for name, value in keys.items()}
        file = tmp_path / "login.json"
        file.write_text(json.dumps({"workspaces": workspaces, "RF_WORKSPACE": default}))
        monkeypatch.setenv("ROBOFLOW_CONFIG_DIR", str(file))

    monkeypatch.delenv("ROBOFLOW_API_KEY")
    stored("mine", mine="notThisOne", team=OTHER_KEY)
    fetch(VERSION, tmp_path / "a", settings())
    stored("mine", mine=OTHER_KEY)
    fetch(VERSION, tmp_path / "b", settings())
    assert server.used == {OTHER_KEY}
    stored("gone", mine=OTHER_KEY)
    with pytest.raises(DataError, match="needs a key"):
        fetch(VERSION, tmp_path / "c", settings())
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    stored("team", team="notThisOne")
    fetch(VERSION, tmp_path / "d", settings())
    assert server.used == {OTHER_KEY, KEY}, "the variable comes first"


def test_the_key_is_in_no_file_output_or_log(
    server: RoboflowServer,
    settings: Settings,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.faults = {"project": ["drop"], "zip": [("cut", 50)]}  # a retry is logged with its address
    source = read(VERSION, tmp_path, settings(retries=1))
    told = [repr(source), caplog.text, *capfd.readouterr()]
    told += [path.read_text("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert "api_key=***" in caplog.text, "the log was looked at"
    assert not [text for text in told if KEY in text]
    assert "secret-link" not in (tmp_path / VERSION / MARKER).read_text()
    assert capfd.readouterr().out == ""


def test_the_planted_key_would_be_seen(
    server: RoboflowServer,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Without the filter the package's requests do show the key, so the test above can fail."""
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        monkeypatch.setattr(logging.getLogger(name), "addFilter", lambda _: None)
    caplog.set_level(logging.DEBUG)
    with pytest.raises(DataError):
        fetch("team/trousers/3", tmp_path, settings())
    assert KEY in caplog.text


@pytest.mark.parametrize(
    ("member", "told"), [("../evil.txt", "leads out of the folder"), ("/tmp/evil.txt", "absolute path")]
)
def test_an_archive_that_writes_elsewhere_is_refused(
    member: str, told: str, server: RoboflowServer, settings: Settings, tmp_path: Path
) -> None:
    server.archive = make_zip({**export(), member: b"evil"})
    with pytest.raises(DataError, match=f"the export of {VERSION} contains .*{told}"):
        fetch(VERSION, tmp_path / "store", settings())
    assert not list(tmp_path.rglob("evil.txt"))
    assert kept(tmp_path / "store") == []


@pytest.mark.parametrize(
    ("archive", "told"),
    [
        (b"<html>this link has expired</html>", "damaged or not a supported archive"),
        (make_zip(export())[:-40], "damaged"),
        (make_zip({"README.roboflow.txt": b"nothing else"}), r"contains no data\.yaml"),
    ],
    ids=["page", "half", "empty"],  # the bytes hold the time
)
def test_what_is_no_dataset_is_refused(
    archive: bytes, told: str, server: RoboflowServer, settings: Settings, tmp_path: Path
) -> None:
    server.archive = archive
    with pytest.raises(DataError, match=told) as caught:
        fetch(VERSION, tmp_path, settings())
    assert "partial" not in str(caught.value)
    assert kept(tmp_path) == []


def test_an_error_page_is_not_taken_for_the_zip(server: RoboflowServer, settings: Settings, tmp_path: Path) -> None:
    server.faults["zip"] = [(403, "expired")]
    with pytest.raises(DataError, match="answers 403"):
        fetch(VERSION, tmp_path, settings())


def test_a_yaml_that_names_photos_elsewhere_is_refused(
    server: RoboflowServer, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "me.jpg").write_bytes(jpeg("red"))
    yaml = f"train: {tmp_path}/private\nval: ../valid/images\nnames: [dress, top]\n"
    server.archive = make_zip({**export(), "data.yaml": yaml.encode()})
    with pytest.raises(DataError, match="outside its folder"):
        read(VERSION, tmp_path / "store", settings())


def test_something_else_that_answers_is_not_roboflow(
    server: RoboflowServer, settings: Settings, tmp_path: Path
) -> None:
    server.faults["key"] = [(200, ["hello"])]
    with pytest.raises(FashionrecError, match="does not respond like Roboflow"):
        fetch(VERSION, tmp_path, settings())
    with pytest.raises(FashionrecError, match="cannot be reached"):
        fetch(VERSION, tmp_path, settings(api_url="http://127.0.0.1:9"))


def test_a_server_in_trouble_is_no_fault_of_the_name(
    server: RoboflowServer, settings: Settings, tmp_path: Path
) -> None:
    server.faults["project"] = [(502, "<html>bad gateway")]
    with pytest.raises(FashionrecError, match=r"127.0.0.1:\d+ has a temporary problem \(status 502\)") as caught:
        fetch(VERSION, tmp_path, settings())
    assert caught.value.exit_code == 1


def test_a_variable_of_another_program_does_not_get_the_key(
    server: RoboflowServer, settings: Settings, tmp_path: Path
) -> None:
    from roboflow.config import refresh_region_urls

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("API_URL", server.url)
        refresh_region_urls()
        with pytest.raises(ConfigError, match="not a Roboflow host"):
            fetch(VERSION, tmp_path, settings(api_url="null"))
    refresh_region_urls()
    assert not server.asked


def test_one_process_fetches_at_a_time_and_what_a_dead_one_left_goes(
    server: RoboflowServer, settings: Settings, tmp_path: Path
) -> None:
    project = tmp_path / "team" / "garments"
    stale = project / ".3.99999.partial" / "whole"
    stale.mkdir(parents=True)
    (stale / "half.jpg").write_bytes(b"x")
    script = (
        "import sys, time\nfrom filelock import FileLock\n"
        "with FileLock(sys.argv[1]):\n print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(project / ".3.lock")], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Busy) as caught:
            fetch(VERSION, tmp_path, settings())
        other.kill()
    assert caught.value.exit_code == 75
    assert stale.is_dir()
    assert not server.asked
    fetch(VERSION, tmp_path, settings())
    assert not stale.exists()


def test_threads_of_one_process_each_get_the_whole_version(
    server: RoboflowServer, settings: Settings, tmp_path: Path
) -> None:
    states: list[str | None] = []
    threads = [
        threading.Thread(target=lambda n=n: states.append(damage(fetch(VERSION, tmp_path / str(n), settings()))))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == [None] * 3
    assert "API_URL" not in os.environ


def test_the_package_is_put_back_as_it_was(server: RoboflowServer, settings: Settings, tmp_path: Path) -> None:
    import roboflow
    from roboflow.util import http

    before = roboflow.API_URL, http.get, http.post, sys.stdout
    fetch(VERSION, tmp_path, settings())
    assert (roboflow.API_URL, http.get, http.post, sys.stdout) == before
    assert api_host(settings().roboflow) == server.url.removeprefix("http://")
    assert api_host(settings(api_url="null").roboflow) == before[0].removeprefix("https://")


def test_without_the_package_the_install_is_named(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as caught:
        fetch(VERSION, tmp_path, settings())
    assert "pip install" in caught.value.hint


def test_a_damaged_settings_file_of_the_package_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"workspaces": ')
    script = (
        "from pathlib import Path\nfrom fashionrec.config import load_config\n"
        "from fashionrec.dataset.sources.roboflow import fetch\n"
        "fetch('a/b/1', Path('store'), load_config(env={}).config)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "ROBOFLOW_CONFIG_DIR": str(tmp_path / "config.json"), "PYTHONPATH": str(Path.cwd())},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1].endswith("DataError: the settings file of the roboflow package is damaged")


def test_what_was_done_is_read_from_the_metadata() -> None:
    assert from_metadata({}, {}) == from_metadata(None, "odd") == {"upright": False}
    before = {
        "auto-orient": True,
        "resize": {"width": "416", "height": "416", "format": "Fit (black edges) in"},
        "contrast": {"enabled": False, "type": "Contrast Stretching"},
        "grayscale": True,
        "remap": {"enabled": True},
    }
    after = {"flip": {"enabled": False}, "image": {"versions": 5}, "mosaic": True}
    assert from_metadata(before, after) == {
        "upright": True,
        "resize": {"width": 416, "height": 416, "mode": "letterbox"},
        "augment": {"copies": 5, "steps": ["mosaic"]},
        "other": ["grayscale"],
    }


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        ("Stretch", "stretch"),
        ("Fit within", "fit"),
        ("Fit (white edges)", "letterbox"),
        ("Fill (with center crop)", "fill"),
        ("?", "other"),
    ],
)
def test_what_was_done_is_read_from_the_words_of_an_export(words: str, mode: str, tmp_path: Path) -> None:
    (tmp_path / "README.roboflow.txt").write_text(README.replace("(Stretch)", f"({words})"))
    found = from_readme(tmp_path)
    assert found["resize"] == {"width": 640, "height": 640, "mode": mode}
    assert (found["upright"], found["equalize"], found["augment"]["copies"]) == (True, {"kind": "adaptive"}, 3)
    assert len(found["augment"]["steps"]) == 3
    plain = (
        "The following pre-processing was applied to each image:\n\nNo image augmentation techniques were applied.\n"
    )
    (tmp_path / "README.roboflow.txt").write_text(plain)
    assert from_readme(tmp_path) == {"upright": False}


def test_either_way_of_saying_it_counts(server: RoboflowServer, settings: Settings, tmp_path: Path) -> None:
    server.preprocessing = server.augmentation = {}
    server.images = 30
    source = read(VERSION, tmp_path / "a", settings())
    assert source.already["resize"]["mode"] == "stretch"
    assert source.already["augment"]["copies"] == 3
    assert source.notes == ("Roboflow states 30 photos for this version; its export has 3",)
    assert applied(PREPROCESSING, AUGMENTATION) == from_metadata(PREPROCESSING, AUGMENTATION)
    server.archive = make_zip({name: data for name, data in export().items() if "README" not in name})
    assert read(VERSION, tmp_path / "b", settings()).already == {"upright": False}
