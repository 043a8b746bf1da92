"""Bundles: models ready to serve, each a folder that can be inspected, copied and verified.

::

    BUNDLE/
      bundle.json       kind, preprocessing, labels or tokenizer settings, graphs, source,
                        agreement, files, fingerprint
      detect.onnx       a detector's raw head;  or  image.onnx, text.onnx, tokenizer.json
      detect.onnx.data  external data: the weights of a large graph, which are memory-mapped
      detect.ready.onnx the graph as optimized by ONNX Runtime for a CPU, with the same weights

No pickle. The fingerprint is a sha256 over everything that decides an output (kind, spec, every
file's bytes) and nothing else, so that two bundles with one fingerprint are the same model.
Optimized graphs are not part of it.

A bundle may be untrusted. Only files that its manifest lists are opened, and a graph only after its
external data was checked (:mod:`fashionrec.common.onnx_file`); links and special files are refused,
other files are ignored.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.common import system
from fashionrec.common.files import dump_json, fingerprint, sha256_file, write_atomic
from fashionrec.common.folder import Folder
from fashionrec.common.onnx_file import Unreadable, check_graph
from fashionrec.errors import ModelError
from fashionrec.models.manifest import (
    EXPORT_AGAIN,
    FORMAT,
    KINDS,
    MANIFEST,
    READY,
    check_manifest,
    format_version,
    read_manifest,
)
from fashionrec.models.providers import CPU, check_started, engine_folder, providers_for

if TYPE_CHECKING:
    import onnxruntime

#: Names of the files of a bundle; ``.tensorrt`` is a folder of versions before 0.2.
_OURS = re.compile(r"bundle\.json|tokenizer\.json|[\w-]+(\.ready)?\.onnx(\.data)?|\..+\.tmp")


@dataclass(frozen=True)
class Bundle:
    """An open bundle. ``spec`` is what the model's adapter needs (preprocessing, labels, decoding,
    tokenizer).

    ``at_once`` optimizes its sessions for a few queries: optimized graphs are opened, mapped
    weights are used without being repacked, and threads do not spin while waiting, which would take
    cores from other models. ``cache`` is the folder for TensorRT engines (default: the user's cache
    folder).
    """

    path: Path
    kind: str
    name: str
    fingerprint: str
    graphs: dict[str, str]
    spec: dict[str, Any]
    source: dict[str, Any]
    agreement: dict[str, Any]
    files: dict[str, dict[str, Any]]
    at_once: bool = False
    cache: Path | None = None
    _checked: set[str] = field(default_factory=set, init=False, compare=False, repr=False)
    _ahead: dict[tuple[str, int, str], _Opening] = field(default_factory=dict, init=False, compare=False, repr=False)
    _asked: set[tuple[str, int, str]] = field(default_factory=set, init=False, compare=False, repr=False)

    @classmethod
    def open(cls, path: str | Path, kind: str | None = None, *, verify: bool = False) -> Bundle:
        """Open a bundle folder and check its manifest and file sizes; ``verify`` also hashes the
        contents.

        Raises :class:`ModelError` if it is missing, damaged, of another version, or not of the
        wanted ``kind``.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        keys = ("kind", "name", "fingerprint", "graphs", "spec", "source", "agreement", "files")
        bundle = cls(path=folder, **{key: manifest[key] for key in keys})
        bundle._check_files(verify)
        try:
            expected = _fingerprint(bundle.kind, bundle.graphs, bundle.spec, bundle.files)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{folder / MANIFEST} is damaged: {error}", hint=EXPORT_AGAIN) from None
        if bundle.fingerprint != expected:
            raise ModelError(f"{folder / MANIFEST} was changed: its fingerprint does not match", hint=EXPORT_AGAIN)
        if kind is not None and bundle.kind != kind:
            raise ModelError(f"{folder} holds {_a(bundle.kind)}, not {_a(kind)}")
        return bundle

    @property
    def folder(self) -> Folder:
        return Folder(self.path, "bundle", ModelError)

    def graph_path(self, graph: str) -> Path:
        """Return the file of a graph (``detect``, ``image`` ...), which only reads files that the
        manifest lists.

        Use it whenever a graph is opened by path. Raises :class:`ModelError`.
        """
        try:
            return self._graph_path(graph)
        except Unreadable as error:
            raise ModelError(f"{self.path / self.graphs[graph]} cannot be loaded: {error}", hint=EXPORT_AGAIN) from None

    def _graph_path(self, graph: str) -> Path:
        if graph not in self.graphs:
            raise ModelError(f"{self.path} has no graph {graph!r}, only {', '.join(self.graphs)}")
        name = self.graphs[graph]
        if name not in self._checked:
            # a graph covered by the fingerprint must not use weights that are not
            ready = graph.endswith(READY)
            listed = {file for file in self.files if ready or READY not in file} if self.files else None
            try:
                check_graph(self.folder, name, listed)
            except FileNotFoundError:
                raise ModelError(f"bundle {self.path} is incomplete: {name} is missing", hint=EXPORT_AGAIN) from None
            self._checked.add(name)
        return self.path / name

    def session(self, graph: str, *, threads: int = 0, device: str = "auto") -> onnxruntime.InferenceSession:
        """Return an ONNX Runtime session of one graph. ``threads`` 0 = all cores. Raises
        :class:`ModelError`.
        """
        key = graph, threads, device
        self._asked.add(key)
        ahead = self._ahead.pop(key, None)
        return ahead.session() if ahead is not None else self._open_session(graph, threads, device)

    def _open_session(self, graph: str, threads: int, device: str) -> onnxruntime.InferenceSession:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0" if threads == 1 or self.at_once else "1"
        )
        if self.at_once and (self.kind == "embedder" or self.spec.get("precision", "fp32") == "fp32"):
            options.add_session_config_entry("session.disable_prepacking", "1")
        precision = str(self.spec.get("precision", "fp32"))
        providers = providers_for(device, ort.get_available_providers(), precision, lambda: self.engines(graph))
        if self.at_once and providers == [CPU] and graph + READY in self.graphs:
            with suppress(Unreadable):  # then the graph itself
                ready = self._graph_path(graph + READY)
                with suppress(Exception):  # optimized by another version of ONNX Runtime
                    return _open_as_it_is(ready, options)
        file = self.graph_path(graph)
        try:
            # falling back from the CPU to the CPU would print to standard output
            falls_back = int(len(providers) > 1)
            session = ort.InferenceSession(str(file), options, providers=providers, enable_fallback=falls_back)
        except Exception as error:  # onnxruntime raises its own classes, one per status
            raise ModelError(
                f"{file} cannot be loaded: {str(error).splitlines()[0][:200]}", hint=EXPORT_AGAIN
            ) from None
        check_started(device, session.get_providers())
        return session

    def engines(self, graph: str) -> Path | None:
        """Return the folder for a graph's TensorRT engines. They contain its weights, so it depends
        on the fingerprint.
        """
        if not self.fingerprint:
            return None
        self._check_files(verify=True)
        return engine_folder(self.cache, self.fingerprint, graph)

    def open_ahead(self, graph: str, *, threads: int = 0, device: str = "auto") -> None:
        """Start opening a session in a thread, unless it was requested before; the next
        :meth:`session` returns it.

        ONNX Runtime is imported first, since imports do not run in parallel.
        """
        import onnxruntime  # noqa: F401

        key = graph, threads, device
        if key not in self._asked:
            self._asked.add(key)
            self._ahead[key] = opening = _Opening(lambda: self._open_session(*key))
            opening.start()

    def copy_to(self, target: Path) -> Bundle:
        """Copy the bundle into the new folder ``target``, with files synced to disk.

        Every file must match the manifest, otherwise :class:`ModelError`. An optimized graph that
        does not answer a fixed input like its graph is left out; it is only a shortcut, and the
        fingerprint does not cover it.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".bundle-", dir=target.parent))
        try:
            for name, listed in self.files.items():
                if self._copy_file(name, temporary / name) != listed["sha256"]:
                    raise self._changed(name)
            manifest = read_manifest(self.path)
            for role in replace(self, path=temporary)._ready_that_differ():
                file = manifest["graphs"].pop(role)
                for name in [name for name in manifest["files"] if name.startswith(file)]:
                    del manifest["files"][name]
                    (temporary / name).unlink()
            write_atomic(temporary / MANIFEST, dump_json(manifest))
            temporary.chmod(0o755)
            system.rename(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        system.sync_folder(target.parent)
        return Bundle.open(target, self.kind)

    def _check_files(self, verify: bool) -> None:
        self.folder.check(dict.fromkeys(self.files, "file"))
        sizes = {entry.name: entry.size for entry in self.folder.entries()}
        for name, listed in self.files.items():
            if name not in sizes:
                raise ModelError(f"bundle {self.path} is incomplete: {name} is missing", hint=EXPORT_AGAIN)
            if sizes[name] != listed["size"]:
                raise ModelError(
                    f"bundle {self.path} is damaged: {name} has {sizes[name]} bytes, not {listed['size']}",
                    hint=EXPORT_AGAIN,
                )
            if verify and self._copy_file(name) != listed["sha256"]:
                raise self._changed(name)

    def _copy_file(self, name: str, target: Path | None = None) -> str:
        """Hash a file, and copy it to disk if a ``target`` is given. Returns the sha256."""
        digest = hashlib.sha256()
        with self.folder.open(name) as file, ExitStack() as stack:
            copy = stack.enter_context(target.open("xb")) if target else None
            while block := file.read(1 << 20):
                digest.update(block)
                if copy:
                    copy.write(block)
            if copy:
                system.sync_file(copy)
        return digest.hexdigest()

    def _changed(self, name: str) -> ModelError:
        return ModelError(f"bundle {self.path} is damaged: the content of {name} has changed", hint=EXPORT_AGAIN)

    def _ready_that_differ(self) -> list[str]:
        """Return the roles of optimized graphs that cannot be run, or that answer a test input
        differently from their graphs.
        """
        from fashionrec.models.graphs import NEAR, NEAR_HALVES, outputs_match

        near = NEAR_HALVES if self.spec.get("precision") == "fp16" else NEAR
        found = []
        for role in [role for role in self.graphs if role.endswith(READY)]:
            graph = self.graph_path(role.removesuffix(READY))
            try:
                ready = self._graph_path(role)
            except Unreadable:
                found.append(role)
            else:
                if not outputs_match(graph, ready, near):
                    found.append(role)
        return found


class _Opening(threading.Thread):
    """A session being opened. (Not a daemon: a process that ends inside ONNX Runtime would be
    aborted.)
    """

    def __init__(self, start: Callable[[], onnxruntime.InferenceSession]) -> None:
        super().__init__(name="fashionrec-opening")
        self._start_session = start
        self._session: onnxruntime.InferenceSession | None = None
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            self._session = self._start_session()
        except Exception as error:
            self._error = error

    def session(self) -> onnxruntime.InferenceSession:
        """Return the session when it is open. Raises the error of opening it."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._session


def write_bundle(
    out: Path,
    *,
    kind: str,
    name: str,
    graphs: Mapping[str, str],
    spec: Mapping[str, Any],
    source: Mapping[str, Any],
    agreement: Mapping[str, Any],
    files: Mapping[str, Path],
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle to ``out`` atomically.

    ``files`` maps names in the bundle to files to copy; ``graphs`` maps a graph's role (``detect``,
    ``image``, ``text``) to one of those names; ``source`` describes its origin and ``agreement``
    how closely it matched that in tests; neither enters the fingerprint. Raises :class:`ModelError`
    if ``out`` exists.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}")
    check_replaceable(out, overwrite=overwrite)
    if out.is_symlink():
        out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        entries = {}
        for file_name, file in sorted(files.items()):
            shutil.copyfile(file, temporary / file_name)
            system.sync_file(temporary / file_name)
            entries[file_name] = {"size": file.stat().st_size, "sha256": sha256_file(temporary / file_name)}
        manifest = {
            "format": FORMAT,
            "format_version": format_version(kind, spec),
            "kind": kind,
            "name": name,
            "fingerprint": _fingerprint(kind, dict(graphs), dict(spec), entries),
            "graphs": dict(graphs),
            "spec": dict(spec),
            "source": dict(source),
            "agreement": dict(agreement),
            "files": entries,
        }
        try:
            check_manifest(manifest)
        except ValueError as error:
            raise ModelError(f"{out} cannot be written: {error}") from None
        write_atomic(temporary / MANIFEST, dump_json(manifest))
        temporary.chmod(0o755)
        if out.exists():
            check_replaceable(out, overwrite=True)
            aside = out.with_name(f".{out.name}-{os.urandom(8).hex()}.old")
            system.rename(out, aside)
            system.rename(temporary, out)
            shutil.rmtree(aside)
        else:
            system.rename(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    system.sync_folder(out.parent)
    return Bundle.open(out, kind)


def check_replaceable(out: Path, *, overwrite: bool) -> None:
    """Raise :class:`ModelError` unless ``out`` does not exist, or (with ``overwrite``) contains a
    bundle and nothing else.

    A folder with other files is never replaced.
    """
    if not os.path.lexists(out):
        return
    if not (overwrite and is_bundle(out)):
        raise ModelError(f"{out} exists", hint="choose another --out, or delete it")
    for entry in Folder(out, "bundle", ModelError).entries():
        if not (entry.name == ".tensorrt" if entry.kind == "folder" else _OURS.fullmatch(entry.name)):
            raise ModelError(
                f"{out} contains a file that is not part of a bundle: {entry.name}",
                hint="choose another --out, or move it",
            )


def is_bundle(path: str | Path) -> bool:
    """Return whether a folder claims to be a bundle (it may still be damaged)."""
    return (Path(path) / MANIFEST).is_file()


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _fingerprint(kind: str, graphs: Mapping[str, str], spec: Mapping[str, Any], files: Mapping[str, Any]) -> str:
    digests = {name: entry["sha256"] for name, entry in files.items() if READY not in name}
    own = {role: name for role, name in graphs.items() if not role.endswith(READY)}
    return fingerprint({"kind": kind, "graphs": own, "spec": dict(spec), "files": digests})


def _open_as_it_is(file: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    import onnxruntime as ort

    usual = options.graph_optimization_level
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(str(file), options, providers=[CPU], enable_fallback=0)
    finally:
        options.graph_optimization_level = usual
