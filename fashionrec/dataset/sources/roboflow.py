"""Data from Roboflow: a version of a project, downloaded once, kept complete, and read as a YOLO
dataset.

::

    STORE/WORKSPACE/PROJECT/VERSION/
      version.json     metadata from Roboflow, and every file with size and sha256: written last
      data.yaml  train|valid|test/{images,labels}  README...

A version never changes at Roboflow, so a complete and unchanged copy is read without a request.
Anything else (partial, a file missing, changed or added) is downloaded again completely, into a
hidden folder next to it.

The roboflow package is used for everything except the zip: its own ``download`` accepts an error
page as the zip, waits forever, does not resume, imports ultralytics to decide whether to rewrite
data.yaml, and prints the signed URL.
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
from fashionrec.common.text import plural
from fashionrec.dataset.archives import open_archive
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
#: Bytes of a marker, which lists every file of a version: about 150 each.
_MARKER_LIMIT = 512 << 20
_LAYOUT = 1
_READ = SUFFIXES | {".txt", ".yaml", ".yml"}  # an added file matters if a reader would use it
_AGAIN = "run this again"
_WHAT = "the version of Roboflow in"

Progress = Callable[[int, int], None]
Sleep = Callable[[float], None]


def parse_version(text: str) -> tuple[str, str, int]:
    """Split ``WORKSPACE/PROJECT/VERSION`` into its parts. Raises :class:`DataError`."""
    owner, _, number = text.strip("/").rpartition("/")
    if not (number.isascii() and number.isdigit()):
        raise DataError(f"{text!r} is not WORKSPACE/PROJECT/VERSION", hint="for example roboflow:my-team/garments/3")
    return *parse_project(owner), int(number)


def read(version: str, store: Path, config: Config, progress: Progress | None = None) -> Source:
    """Return a version as a source, downloading it unless ``store`` has it. Raises like
    :func:`fetch`.

    ``already`` is what Roboflow did to the pixels, in the form of
    :mod:`fashionrec.dataset.roboflow.applied`.
    """
    from fashionrec.dataset.sources.yolo import read as read_yolo

    workspace, project, number = parse_version(version)
    folder, why = _kept(version, store, config, progress, time.sleep)
    about = read_json(Folder(folder, _WHAT).path(MARKER, "file"), limit=_MARKER_LIMIT)
    already = applied(about["roboflow"].get("preprocessing"), about["roboflow"].get("augmentation"), folder)
    notes = [f"the stored copy is unusable ({why}): downloaded again"] if why else []
    declared = about["roboflow"].get("images")
    if declared != about["images"]:
        notes.append(f"Roboflow states {plural(declared, 'photo')} for this version; its export has {about['images']}")
    notes += [f"Roboflow changed the pixels: {step}" for step in already.get("other", ())]
    label = f"roboflow:{workspace}/{project}/{number}"
    outside = [one for refused in read_data_yaml(folder, False).refused.values() for one in refused]
    source = None if outside else read_yolo(folder, label, follow_links=False)
    if source is None or any(row["reason"] == "outside" for row in source.failed):
        raise DataError(f"the data.yaml of {label} names photos outside its folder; they were not used")
    return replace(source, label=label, already=already, notes=(*source.notes, *notes))


def fetch(
    version: str, store: Path, config: Config, progress: Progress | None = None, *, sleep: Sleep = time.sleep
) -> Path:
    """Return the folder of a version in YOLOv8 format below ``store``; without a request if it is
    complete and unchanged.

    ``progress`` is called with bytes of the zip, done and total; ``sleep`` waits for an export in
    preparation, and before a download resumes. Raises :class:`DataError` for a name, key or archive
    that is refused, :class:`FashionrecError` for network failures, :class:`Busy` if another process
    is downloading it.
    """
    return _kept(version, store, config, progress, sleep)[0]


def damage(folder: Path) -> str | None:
    """Describe what is wrong with a stored version in a few words; None if it is complete and
    unchanged.

    A file with the same size and modification time counts as unchanged; with another time it is
    hashed. Raises :class:`DataError` for a link or a special file in it.
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
        return "it was stored by another version of fashionrec"
    if wrong:
        return f"{len(wrong)} of {plural(len(files), 'file')} missing or changed, such as {wrong[0]}"
    added = sorted({name for name in found if Path(name).suffix.lower() in _READ} - files.keys() - {MARKER})
    return f"{plural(len(added), 'file')} added, such as {added[0]}" if added else None


def _same(path: Path, size: int, moment: int, sha256: str) -> bool:
    status = path.lstat()
    return status.st_size == size and (status.st_mtime_ns == moment or sha256_file(path) == sha256)


def _kept(
    version: str, store: Path, config: Config, progress: Progress | None, sleep: Sleep
) -> tuple[Path, str | None]:
    """Return the version's folder, and what was wrong with a copy that was replaced."""
    workspace, project, number = parse_version(version)
    folder = store / workspace / project / str(number)
    inside = Folder(store, "what is kept of Roboflow in")
    where = f"{workspace}/{project}"
    if store.exists():
        inside.path(f"{where}/{number}", "folder")
    if folder.is_dir() and damage(folder) is None:
        return folder, None
    with connected(workspace, config.roboflow):  # a missing key is reported before anything is written
        pass
    try:
        with locked(folder.parent / f".{folder.name}.lock", f"is fetching {version}"):
            why = damage(folder) if folder.exists() else None
            if folder.exists() and why is None:  # another process has just downloaded it
                return folder, None
            stale = re.compile(rf"{re.escape(where)}/\.{number}\.\d+\.partial")
            partials = [entry for entry in inside.entries(where) if stale.fullmatch(entry.name)]
            for entry in partials:  # of dead processes: nobody else holds the lock
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
        raise FashionrecError(f"cannot write {folder}: {error.strerror or error}", hint=_AGAIN) from None
    return folder, why


def _put(folder: Path, new: Path, partial: Path) -> None:
    """Replace the stored copy; the old one is removed with the hidden folder."""
    if folder.exists():
        rename(folder, partial / "old")
    rename(new, folder)


def _fetched(
    workspace: str, project: str, number: int, partial: Path, config: Config, progress: Progress | None, sleep: Sleep
) -> Path:
    """Download, unpack and describe a version below ``partial``; return its folder, complete with
    its marker.
    """
    name = f"{workspace}/{project}/{number}"
    archive = partial / f"{project}-{number}.zip"
    settings = config.roboflow
    with connected(workspace, settings) as client:
        opened_project = client.project(workspace, project)
        with told_anew(
            f"Roboflow has no version {number} of {workspace}/{project}, or does not show it",
            client,
            "check its number",
        ):
            version = opened_project.version(number)
            about = {key: getattr(version, key, None) for key in _TOLD}
        with told_anew(f"Roboflow does not provide {name} in the format {FORMAT}", client, _AGAIN):
            link = _export_link(client, workspace, project, number, settings.wait, sleep)
        with told_anew(f"Roboflow does not provide the zip of {name}", client, _AGAIN):
            _download(client, link, archive, settings.retries, progress, sleep)
    whole = partial / "whole"
    try:
        with open_archive(archive, partial, config.dataset) as unpacked:
            rename(unpacked, whole)
            whole.chmod(partial.stat().st_mode)  # it was created for one user
    except DataError as error:
        told = str(error).replace(str(archive), f"the export of {name}")
        raise DataError(told, hint=error.hint) from None
    if not (whole / "data.yaml").is_file():
        raise DataError(f"the export of {name} contains no data.yaml", hint=_AGAIN)
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


#: Stored metadata of a version: the package's own attributes of a Version.
_TOLD = ("name", "type", "created", "images", "splits", "preprocessing", "augmentation")


def _export_link(client: Client, workspace: str, project: str, number: int, wait: float, sleep: Sleep) -> str:
    """Return the URL of the zip, once Roboflow has prepared it; it is as secret as a key: never
    shown.
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
                f"Roboflow is still preparing {workspace}/{project}/{number}",
                hint=f"{_AGAIN} in a while, or raise roboflow.wait",
            )
        sleep(pause)
        pause = min(10.0, pause * 1.5)


def _download(client: Client, link: str, target: Path, retries: int, progress: Progress | None, sleep: Sleep) -> None:
    """Download the zip; resume after a cut, as long as the server says it is the same file."""
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
                        f"Roboflow does not provide the zip: its server answers {response.status_code}", hint=_AGAIN
                    )
                continued = response.status_code == 206
                if continued and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                    raise DataError("Roboflow returned the wrong byte range of the zip", hint=_AGAIN)
                strong = response.headers.get("ETag", "")
                tag = "" if strong.startswith("W/") else strong
                _write(response, target, have if continued else 0, progress)
                return
        except RequestException:
            if attempt == retries:
                raise
            sleep(0.5 * attempt)


def _write(response: Any, target: Path, have: int, progress: Progress | None) -> None:
    """Write a response's bytes after the first ``have`` of the file. requests raises if fewer come
    than announced.
    """
    rest = int(response.headers.get("Content-Length") or 0)
    if 2 * rest > shutil.disk_usage(target.parent).free:
        raise FashionrecError(f"not enough disk space for {rest >> 20} MiB and their unpacked content")
    total = have + rest
    with target.open("r+b" if have else "wb") as file:  # in a folder that was just created
        file.seek(have)
        file.truncate()
        for block in response.iter_content(1 << 18):
            file.write(block)
            have += len(block)
            if progress:
                progress(have, max(have, total))
