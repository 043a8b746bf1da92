"""Check a whole folder: its kind, and whether it matches its manifest."""

from __future__ import annotations

from pathlib import Path, PurePath, PurePosixPath

from fashionrec.common.folder import Entry, Folder
from fashionrec.errors import DataError, FashionrecError
from fashionrec.inspection.pickles import Budget
from fashionrec.inspection.report import Report
from fashionrec.inspection.tree import inspect_tree
from fashionrec.labels.data_yaml import DATA_YAML, read_data_yaml
from fashionrec.models.bundle import Bundle
from fashionrec.models.manifest import MANIFEST as BUNDLE_MANIFEST
from fashionrec.models.runs import RECORD, read_run

_CATALOGUE = "catalogue.json"
#: Files that identify the kind of a folder, in this order.
_KINDS = (
    (_CATALOGUE, "catalogue"),
    (BUNDLE_MANIFEST, "bundle"),
    (RECORD, "run"),
    (DATA_YAML, "dataset"),
    ("export.json", "export"),
)


def inspect_folder(path: str | Path, budget: Budget | None = None) -> Report:
    """Check whether a folder is safe to use. It may be reached by a link; nothing inside is
    followed.

    ``budget`` limits the cost of reading its pickles. Raises :class:`DataError` if there is no such
    folder.
    """
    root = Path(path)
    if not root.is_dir():
        if root.exists():
            raise DataError(
                f"{root} is not a folder", hint="put the file (an archive unpacked) into a folder and check that"
            )
        raise DataError(f"no such folder: {root}")
    folder = Folder(root)
    name, kind = next((pair for pair in _KINDS if folder.kind(pair[0]) is not None), ("", "unknown"))
    report = Report(root, kind)
    files = inspect_tree(folder, report, budget or Budget())
    _check_manifests(folder, files, report)
    if name not in ("", DATA_YAML) and folder.kind(name) == "folder":
        report.add(name, "manifest", "a folder in place of a file", refused=True)
    if kind == "dataset" and folder.kind(DATA_YAML) != "file":
        _check_data(root / DATA_YAML, DATA_YAML, report)
    return report


def _check_manifests(folder: Folder, files: list[Entry], report: Report) -> None:
    """Compare everything in the folder that has a manifest with it."""
    whole = not (
        report.counts["link"] or report.counts["special-file"]
    )  # otherwise that is the reason, and already reported
    for entry in files:
        own = PurePosixPath(entry.name)
        place = folder.root / own.parent
        if own.name == DATA_YAML:
            _check_data(place / own.name, entry.name, report)
        elif not whole:
            continue
        elif own.name == _CATALOGUE:
            _check_catalogue(place, entry.name, report)
        elif own.name == BUNDLE_MANIFEST:
            _check_bundle(folder, entry.name, files, report)
        elif own.name == RECORD:
            _check_run(place, entry.name, report)


def _check_catalogue(path: Path, name: str, report: Report) -> None:
    from fashionrec.catalogue.catalogue import verify_catalogue

    try:
        verify_catalogue(path)
    except FashionrecError as error:
        report.add(name, "manifest", str(error), refused=True)


def _check_bundle(folder: Folder, name: str, files: list[Entry], report: Report) -> None:
    parent = PurePosixPath(name).parent
    try:
        bundle = Bundle.open(folder.root / parent, verify=True)
        for role in bundle.graphs:
            bundle.graph_path(role)
    except FashionrecError as error:
        report.add(name, "manifest", str(error), refused=True)
        return
    listed = {str(parent / file) for file in (*bundle.files, BUNDLE_MANIFEST)}
    for entry in files:
        if PurePosixPath(entry.name).parent == parent and entry.name not in listed:
            graph = " graph" if entry.name.endswith(".onnx") else ""
            report.add(entry.name, "unlisted", f"a{graph or ' file'} that the bundle does not list")


def _check_run(path: Path, name: str, report: Report) -> None:
    try:
        run = read_run(path)
        outside = [which for which, file in run.weights.items() if _leads_out(str(file))]
    except (FashionrecError, AttributeError, TypeError) as error:
        report.add(name, "manifest", f"unreadable: {error}", refused=True)
        return
    for which in outside:
        report.add(name, "outside", f"its {which} weights are {run.weights[which]}", refused=True)


def _check_data(path: Path, name: str, report: Report) -> None:
    """Report a dataset that training refuses: above all links, and photos outside the folder.

    Links and special files are reported as the reason, all of them.
    """
    try:
        data = read_data_yaml(path)
        for split in data.splits:
            data.images(split)
    except FashionrecError as error:
        report.add(name, "dataset", str(error), refused=True)
        report.refuse("link", "special-file")


def _leads_out(value: str) -> bool:
    """Return whether a path is absolute, or leads out of the folder it is relative to."""
    depth = 0
    if PurePath(value).is_absolute() or value.startswith(("/", "\\", "~")) or value[1:2] == ":":
        return True
    for part in value.replace("\\", "/").split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return True
    return False
