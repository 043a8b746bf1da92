"""Data from Roboflow: one version of a project, fetched once, kept whole, and read as the YOLO
dataset that it is.

::

    STORE/WORKSPACE/PROJECT/VERSION/
      version.json     what Roboflow says of it, and every file with size and sha256: written last
      data.yaml  train|valid|test/{images,labels}  README...

A version never changes at Roboflow, so one that is kept and unchanged is read without asking
anybody. Anything else (half empty, a file missing, changed or added) is fetched again whole. What
is being fetched lies in a hidden folder beside it.

The roboflow package is asked for everything but the zip: its own ``download`` takes an error page
for the zip, waits for ever, does not go on after a cut, imports ultralytics to decide whether to
rewrite data.yaml, and prints the signed address.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.common.documents import read_json
from fashionrec.common.files import dump_json, locked, sha256_file
from fashionrec.common.folder import Folder
from fashionrec.common.system import rename
from fashionrec.dataset.archives import opened
from fashionrec.dataset.roboflow.api import PASSING, Client, connected, parse_project, told_anew
from fashionrec.dataset.roboflow.applied import applied
from fashionrec.errors import DataError, FashionrecError
from fashionrec.labels.data_yaml import read_data_yaml
from fashionrec.photos.images import SUFFIXES

if TYPE_CHECKING:
    from fashionrec.config import Config
    from fashionrec.dataset.source import Source

MARKER = "version.json"
FORMAT = "yolov8"
#: Bytes of a marker, which names every file of a version: about 150 each.
_MARKER_LIMIT = 512 << 20
_LAYOUT = 1
_READ = SUFFIXES | {".txt", ".yaml", ".yml"}  # a file added to a version matters if a reader would take it
_AGAIN = "run this again"
_WHAT = "the version of Roboflow in"

Progress = Callable[[int, int], None]
Sleep = Callable[[float], None]


def parse_version(text: str) -> tuple[str, str, int]:
    """``WORKSPACE/PROJECT/VERSION`` in its parts. Raises :class:`DataError`."""
    owner, _, number = text.strip("/").rpartition("/")
    if not (number.isascii() and number.isdigit()):
        raise DataError(f"{text!r} is not WORKSPACE/PROJECT/VERSION", hint="as in roboflow:my-team/garments/3")
    return *parse_project(owner), int(number)


def read(version: str, store: Path, config: Config, progress: Progress | None = None) -> Source:
    """A version as a source, fetched if it is not kept in ``store`` already. Raises as
    :func:`fetch` does.

    ``already`` is what Roboflow did to the pixels, in the form of
    :mod:`fashionrec.dataset.roboflow.applied`.
    """
    from fashionrec.dataset.sources.yolo import read as read_yolo

    workspace, project, number = parse_version(version)
    folder, why = _kept(version, store, config, progress, time.sleep)
    about = read_json(Folder(folder, _WHAT).path(MARKER, "file"), limit=_MARKER_LIMIT)
    already = applied(about["roboflow"].get("preprocessing"), about["roboflow"].get("augmentation"), folder)
    notes = [f"the copy that was kept could not be used ({why}): fetched again"] if why else []
    declared = about["roboflow"].get("images")
    if declared != about["images"]:
        notes.append(f"Roboflow says that this version has {declared} photos; its export has {about['images']}")
    notes += [f"Roboflow changed the pixels: {step}" for step in already.get("other", ())]
    label = f"roboflow:{workspace}/{project}/{number}"
    outside = [one for refused in read_data_yaml(folder, False).refused.values() for one in refused]
    source = None if outside else read_yolo(folder, label, follow_links=False)
    if source is None or any(row["reason"] == "outside" for row in source.failed):
        raise DataError(f"the data.yaml of {label} names photos outside of its folder; nothing of it was used")
    return replace(source, label=label, already=already, notes=(*source.notes, *notes))


def fetch(
    version: str, store: Path, config: Config, progress: Progress | None = None, *, sleep: Sleep = time.sleep
) -> Path:
    """The folder of a version in YOLOv8 format below ``store``; nothing is asked where it is kept
    whole and unchanged.

    ``progress`` is called with bytes of the zip, done and in all; ``sleep`` waits for an export
    that is being made, and before a download goes on. Raises :class:`DataError` for a name, key or
    archive that is refused, :class:`FashionrecError` where the network fails, :class:`Busy` where
    another process is fetching it.
    """
    return _kept(version, store, config, progress, sleep)[0]


def damage(folder: Path) -> str | None:
    """What is wrong with a version that is kept there, in a few words; None where it is complete
    and unchanged.

    A file whose size and time of change are as they were is taken for unchanged; where the time
    differs it is hashed. Raises :class:`DataError` for one with a link or a special file in it.
    """
    inside = Folder(folder, _WHAT)
    inside.check({MARKER: "file"})
    found = {entry.name for entry in inside.walk() if entry.kind == "file"}
    try:
        marker = read_json(folder / MARKER, limit=_MARKER_LIMIT)
        files = dict(marker["files"])
        sound = marker["layout"] == _LAYOUT and isinstance(marker["roboflow"], dict) and bool(files)
        wrong = [
            name
            for name, (size, moment, sha) in files.items()
            if name not in found or not _same(folder / name, size, moment, sha)
        ]
    except (OSError, ValueError, LookupError, TypeError):
        return "it is incomplete"
    if not sound:
        return "it was kept by another version of fashionrec"
    if wrong:
        return f"{len(wrong)} of {len(files)} files are missing or changed, as {wrong[0]}"
    added = sorted({name for name in found if Path(name).suffix.lower() in _READ} - files.keys() - {MARKER})
    return f"{len(added)} files were added, as {added[0]}" if added else None


def _same(path: Path, size: int, moment: int, sha256: str) -> bool:
    status = path.lstat()
    return status.st_size == size and (status.st_mtime_ns == moment or sha256_file(path) == sha256)


def _kept(
    version: str, store: Path, config: Config, progress: Progress | None, sleep: Sleep
) -> tuple[Path, str | None]:
    """The version's folder, and what was wrong with an earlier copy that was replaced."""
    workspace, project, number = parse_version(version)
    folder = store / workspace / project / str(number)
    inside = Folder(store, "what is kept of Roboflow in")
    where = f"{workspace}/{project}"
    if store.exists():
        inside.path(f"{where}/{number}", "folder")
    if folder.is_dir() and damage(folder) is None:
        return folder, None
    with connected(workspace, config.roboflow):  # a key is missed before anything is written
        pass
    try:
        with locked(folder.parent / f".{folder.name}.lock", f"is fetching {version}"):
            why = damage(folder) if folder.exists() else None
            if folder.exists() and why is None:  # another process has just fetched it
                return folder, None
            stale = re.compile(rf"{re.escape(where)}/\.{number}\.\d+\.partial")
            partials = [entry for entry in inside.entries(where) if stale.fullmatch(entry.name)]
            for entry in partials:  # of the dead: nobody else holds the lock
                inside.path(entry.name, "folder")
            for entry in partials:
                inside.remove(entry.name, ignore_errors=True)
            name = f"{where}/.{number}.{os.getpid()}.partial"
            partial = inside.make_folder(name)
            try:
                _put(folder, _fetched(workspace, project, number, partial, config, progress, sleep), partial)
            finally:
                inside.remove(name, ignore_errors=True)
    except OSError as error:
        raise FashionrecError(f"{folder} cannot be written: {error.strerror or error}", hint=_AGAIN) from None
    return folder, why


def _put(folder: Path, new: Path, partial: Path) -> None:
    """Exchange what is kept for what was fetched; the old copy goes with the hidden folder."""
    if folder.exists():
        rename(folder, partial / "old")
    rename(new, folder)


def _fetched(
    workspace: str, project: str, number: int, partial: Path, config: Config, progress: Progress | None, sleep: Sleep
) -> Path:
    """Fetch, unpack and describe a version below ``partial``; returns its folder, complete with its
    marker.
    """
    name = f"{workspace}/{project}/{number}"
    archive = partial / f"{project}-{number}.zip"
    settings = config.roboflow
    with connected(workspace, settings) as client:
        opened_project = client.project(workspace, project)
        with told_anew(f"Roboflow does not show version {number} of {workspace}/{project}", client, "check its number"):
            version = opened_project.version(number)
            about = {key: getattr(version, key, None) for key in _TOLD}
        with told_anew(f"Roboflow does not give {name} in the format {FORMAT}", client, _AGAIN):
            link = _export_link(client, workspace, project, number, settings.wait, sleep)
        with told_anew(f"Roboflow does not give the zip of {name}", client, _AGAIN):
            _download(client, link, archive, settings.retries, progress, sleep)
    whole = partial / "whole"
    try:
        with opened(archive, partial, config.dataset) as unpacked:
            rename(unpacked, whole)
            whole.chmod(partial.stat().st_mode)  # it was made for one user
    except DataError as error:
        told = str(error).replace(str(archive), f"what Roboflow gave for {name}")
        raise DataError(told, hint=error.hint) from None
    if not (whole / "data.yaml").is_file():
        raise DataError(f"what Roboflow gave for {name} holds no data.yaml", hint=_AGAIN)
    inside = Folder(whole, _WHAT)
    inside.remove(MARKER)
    names = [entry.name for entry in inside.walk() if entry.kind == "file"]
    files = {name: (*_size_and_time(whole / name), sha256_file(whole / name)) for name in sorted(names)}
    marker = {
        "layout": _LAYOUT,
        "version": name,
        "roboflow": about,
        "images": sum(Path(key).suffix.lower() in SUFFIXES for key in files),
        "files": files,
    }
    inside.write(MARKER, dump_json(marker))
    return whole


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


#: What is kept of a version's metadata: the package's own attributes of a Version.
_TOLD = ("name", "type", "created", "images", "splits", "preprocessing", "augmentation")


def _export_link(client: Client, workspace: str, project: str, number: int, wait: float, sleep: Sleep) -> str:
    """The address of the zip, once Roboflow has made the version and its export; it is as good as a
    key: never shown.
    """
    deadline = time.monotonic() + wait
    pause = 1.0
    where = {"api_key": client.key, "workspace_url": workspace, "project_url": project, "version": str(number)}
    while True:
        state = client.adapter.get_version(**where, nocache=True)["version"]
        if not state.get("generating") and state.get("images", 0):
            export = client.adapter.get_version_export(**where, format=FORMAT)
            if export.get("ready") is not False:
                return str(export["export"]["link"])
        if time.monotonic() + pause > deadline:
            raise FashionrecError(
                f"Roboflow is still making {workspace}/{project}/{number}",
                hint=f"{_AGAIN} in a while, or raise roboflow.wait",
            )
        sleep(pause)
        pause = min(10.0, pause * 1.5)


def _download(client: Client, link: str, target: Path, retries: int, progress: Progress | None, sleep: Sleep) -> None:
    """The zip, whole; goes on where a connection was cut, as long as the server says it is still
    the same file.
    """
    from requests.exceptions import RequestException

    tag = ""
    for attempt in range(retries + 1):
        have = target.stat().st_size if tag and target.is_file() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-", "If-Range": tag} if have else {})
        try:
            with client.session.get(link, headers=headers, stream=True, timeout=client.timeout) as response:
                if response.status_code not in (200, 206):
                    kind = FashionrecError if response.status_code in PASSING else DataError
                    raise kind(
                        f"Roboflow does not give the zip: its server answers {response.status_code}", hint=_AGAIN
                    )
                continued = response.status_code == 206
                if continued and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                    raise DataError("Roboflow gives another part of the zip than was asked for", hint=_AGAIN)
                strong = response.headers.get("ETag", "")
                tag = "" if strong.startswith("W/") else strong
                _write(response, target, have if continued else 0, progress)
                return
        except RequestException:
            if attempt == retries:
                raise
            sleep(0.5 * attempt)


def _write(response: Any, target: Path, have: int, progress: Progress | None) -> None:
    """A response's bytes after the first ``have`` of the file. requests raises where fewer come
    than were announced.
    """
    rest = int(response.headers.get("Content-Length") or 0)
    if 2 * rest > shutil.disk_usage(target.parent).free:
        raise FashionrecError(f"the disk has no room for {rest >> 20} MiB and what they unpack to")
    total = have + rest
    with target.open("r+b" if have else "wb") as file:  # in a folder that was made just now
        file.seek(have)
        file.truncate()
        for block in response.iter_content(1 << 18):
            file.write(block)
            have += len(block)
            if progress:
                progress(have, max(have, total))
