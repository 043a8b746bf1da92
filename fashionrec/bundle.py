"""The door between the planes: one model ready to serve, as a folder that can be looked into, copied and trusted.

::

    BUNDLE/
      bundle.json      kind, preprocessing, labels or tokenizer settings, graphs, source, agreement, files, fingerprint
      detect.onnx      a detector's raw head;   or   image.onnx, text.onnx, tokenizer.json   of an encoder
      detect.onnx.data the weights of a large graph, which are mapped
      detect.ready.onnx  the same network as ONNX Runtime rewrites it for a CPU, which it need not do again (the same weights)

No pickle. The fingerprint is a sha256 over everything that decides an output (kind, spec, every file's bytes) and
nothing else, so that two bundles with one fingerprint are the same model. What is ready is not part of it: it is the same again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.common.documents import read_json
from fashionrec.errors import ModelError
from fashionrec.files import dump_json, fingerprint, fsync_file, sha256_file, write_atomic

if TYPE_CHECKING:
    import onnxruntime

FORMAT = "fashionrec-bundle"
FORMAT_VERSION = 1
MANIFEST = "bundle.json"
KINDS = ("detector", "embedder")
#: After the role of a graph: that of the same one made ready to be opened by a CPU.
READY = ".ready"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. ``spec`` is what the model's adapter needs (preprocessing, labels, decode, tokenizer).

    ``at_once`` says that its sessions are for a few questions: what would take longer than these is left out. Graphs are opened
    as they were made ready, weights are used where they are mapped and not brought into another order first, and threads do
    not wait for more to do, which would take the other models' cores.
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
    _ahead: dict[tuple[str, int, str], _Opening] = field(default_factory=dict, init=False, compare=False, repr=False)
    _asked: set[tuple[str, int, str]] = field(default_factory=set, init=False, compare=False, repr=False)

    @classmethod
    def open(cls, path: str | Path, kind: str | None = None, *, verify: bool = False) -> Bundle:
        """Open a bundle folder and check its manifest and file sizes; ``verify`` hashes the contents too.

        Raises :class:`ModelError` where it is missing, damaged, of another version, or not of the wanted ``kind``.
        """
        folder = Path(path)
        manifest = _read_manifest(folder)
        try:
            bundle = cls(
                path=folder,
                kind=str(manifest["kind"]),
                name=str(manifest["name"]),
                fingerprint=str(manifest["fingerprint"]),
                graphs=dict(manifest["graphs"]),
                spec=dict(manifest["spec"]),
                source=dict(manifest["source"]),
                agreement=dict(manifest["agreement"]),
                files={str(name): dict(entry) for name, entry in manifest["files"].items()},
            )
            bundle._check_files(verify)
            expected = _fingerprint(bundle.kind, bundle.graphs, bundle.spec, bundle.files)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{folder / MANIFEST} is damaged ({error!r})", hint=_AGAIN) from None
        if bundle.fingerprint != expected:
            raise ModelError(f"{folder / MANIFEST} was changed: its fingerprint does not fit", hint=_AGAIN)
        if kind is not None and bundle.kind != kind:
            raise ModelError(f"{folder} holds {_a(bundle.kind)}, not {_a(kind)}")
        return bundle

    def session(self, graph: str, *, threads: int = 0, device: str = "auto") -> onnxruntime.InferenceSession:
        """An ONNX Runtime session of one graph. ``threads`` 0 = all cores. Raises :class:`ModelError`."""
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
        if graph not in self.graphs:
            raise ModelError(f"{self.path} has no graph {graph!r}, only {', '.join(self.graphs)}")
        file = self.path / self.graphs[graph]
        providers = _providers(device, ort.get_available_providers(), file, str(self.spec.get("precision", "fp32")))
        if self.at_once and providers == [_CPU] and (ready := self.graphs.get(graph + READY)):
            with suppress(Exception):  # of another ONNX Runtime, which cannot read it: then the graph itself
                return _opened_as_it_is(self.path / ready, options)
        try:
            # falling back from the CPU to the CPU would only be told on standard output, where nobody asked for it
            falls_back = int(len(providers) > 1)
            session = ort.InferenceSession(str(file), options, providers=providers, enable_fallback=falls_back)
        except Exception as error:  # onnxruntime raises its own classes, one per status
            raise ModelError(f"{file} cannot be loaded: {str(error).splitlines()[0][:200]}", hint=_AGAIN) from None
        _started(device, session.get_providers())
        return session

    def open_ahead(self, graph: str, *, threads: int = 0, device: str = "auto") -> None:
        """Start opening a session in a thread, unless it was asked for before; the next :meth:`session` of the same is this one.

        ONNX Runtime is imported before, as imports do not run beside one another.
        """
        import onnxruntime  # noqa: F401

        key = graph, threads, device
        if key not in self._asked:
            self._asked.add(key)
            self._ahead[key] = opening = _Opening(lambda: self._open_session(*key))
            opening.start()

    def copy_to(self, target: Path) -> Bundle:
        """Copy the bundle whole into the folder ``target`` (which must not exist), files synced to disk."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".bundle-", dir=target.parent))
        try:
            for name in self.files:
                shutil.copyfile(self.path / name, temporary / name)
                fsync_file(temporary / name)
            shutil.copyfile(self.path / MANIFEST, temporary / MANIFEST)
            fsync_file(temporary / MANIFEST)
            temporary.chmod(0o755)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        fsync_file(target.parent)
        return Bundle.open(target, self.kind)

    def _check_files(self, verify: bool) -> None:
        for name, entry in self.files.items():
            if Path(name).name != name or name in (".", ".."):
                raise ModelError(f"{self.path / MANIFEST} names a file outside its folder: {name!r}")
            file = self.path / name
            if not file.is_file():
                raise ModelError(f"bundle {self.path} is incomplete: {name} is missing", hint=_AGAIN)
            size = file.stat().st_size
            if size != entry["size"]:
                raise ModelError(
                    f"bundle {self.path} is damaged: {name} has {size} bytes, not {entry['size']}", hint=_AGAIN
                )
            if verify and sha256_file(file) != entry["sha256"]:
                raise ModelError(f"bundle {self.path} is damaged: the content of {name} has changed", hint=_AGAIN)
        for file_name in self.graphs.values():
            if file_name not in self.files:
                raise ModelError(f"{self.path / MANIFEST} does not list its graph {file_name!r}", hint=_AGAIN)


class _Opening(threading.Thread):
    """A session on its way. (No daemon: a process that ended within ONNX Runtime would be aborted.)"""

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
        """The session, once it is open. Raises what opening it raised."""
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
    """Write a bundle so that ``out`` is whole or not there.

    ``files`` maps names in the bundle to files to copy; ``graphs`` maps a graph's role (``detect``, ``image``,
    ``text``) to one of those names; ``source`` says what it was made from and ``agreement`` how well it was measured to
    agree with that; neither enters the fingerprint. Raises :class:`ModelError` if ``out`` is there already.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}")
    if out.exists() and not (overwrite and is_bundle(out)):
        raise ModelError(f"{out} is there already", hint="choose another --out, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        entries = {}
        for file_name, file in sorted(files.items()):
            shutil.copyfile(file, temporary / file_name)
            fsync_file(temporary / file_name)
            entries[file_name] = {"size": file.stat().st_size, "sha256": sha256_file(temporary / file_name)}
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kind": kind,
            "name": name,
            "fingerprint": _fingerprint(kind, dict(graphs), dict(spec), entries),
            "graphs": dict(graphs),
            "spec": dict(spec),
            "source": dict(source),
            "agreement": dict(agreement),
            "files": entries,
        }
        write_atomic(temporary / MANIFEST, dump_json(manifest))
        temporary.chmod(0o755)
        if out.exists():
            aside = out.with_name(f".{out.name}-{os.getpid()}.old")
            out.rename(aside)
            temporary.rename(out)
            shutil.rmtree(aside)
        else:
            temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_file(out.parent)
    return Bundle.open(out, kind)


def is_bundle(path: str | Path) -> bool:
    """Whether a folder claims to be a bundle (it may still be damaged)."""
    return (Path(path) / MANIFEST).is_file()


_AGAIN = "export or copy it again"


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ModelError(f"no bundle at {folder}", hint="make one with `fashionrec export`")
    try:
        manifest = read_json(folder / MANIFEST)
    except FileNotFoundError:
        raise ModelError(
            f"{folder} is not a bundle: it has no {MANIFEST}", hint="make one with `fashionrec export`"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / MANIFEST} is damaged: {error}", hint=_AGAIN) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelError(f"{folder / MANIFEST} is not a bundle's manifest", hint="make one with `fashionrec export`")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{folder} is a bundle of format {manifest.get('format_version')}; this fashionrec reads {FORMAT_VERSION}",
            hint="export it again with this version",
        )
    return manifest


def _fingerprint(kind: str, graphs: Mapping[str, str], spec: Mapping[str, Any], files: Mapping[str, Any]) -> str:
    digests = {name: entry["sha256"] for name, entry in files.items() if READY not in name}
    own = {role: name for role, name in graphs.items() if not role.endswith(READY)}
    return fingerprint({"kind": kind, "graphs": own, "spec": dict(spec), "files": digests})


def _opened_as_it_is(file: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    import onnxruntime as ort

    usual = options.graph_optimization_level
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(str(file), options, providers=[_CPU], enable_fallback=0)
    finally:
        options.graph_optimization_level = usual


#: What ``project.device`` asks of ONNX Runtime, best first; each falls back on the next for what it cannot do.
_CPU, _CUDA, _TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_WANTED = {"cpu": [_CPU], "auto": [_CUDA, _CPU], "cuda": [_CUDA, _CPU], "tensorrt": [_TENSORRT, _CUDA, _CPU]}
#: Those that must be there when they are asked for by name.
_NEEDED = {"cuda": _CUDA, "tensorrt": _TENSORRT}
_GPU_HINT = "pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu; or set project.device=auto"


def _providers(
    device: str, available: Sequence[str], file: Path, precision: str
) -> list[str | tuple[str, dict[str, str]]]:
    """The providers of a session, with TensorRT's options. Raises :class:`ModelError` where the one asked for is not there."""
    needed = _NEEDED.get(device)
    if needed and needed not in available:
        raise ModelError(
            f"project.device is {device}, but this ONNX Runtime has no {needed.removesuffix('ExecutionProvider')} provider",
            hint=_GPU_HINT,
        )
    found = [provider for provider in _WANTED.get(device, _WANTED["auto"]) if provider in available]
    return [(name, _tensorrt_options(file, precision)) if name == _TENSORRT else name for name in found]


def _tensorrt_options(file: Path, precision: str) -> dict[str, str]:
    """An engine is built for the GPU at hand, which takes minutes: it is kept beside its graph, where that can be written to."""
    options = {"trt_fp16_enable": str(int(precision == "fp16")), "trt_int8_enable": str(int(precision == "int8"))}
    if os.access(file.parent, os.W_OK):
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(file.parent / ".tensorrt")}
    return options


def _started(device: str, providers: Sequence[str]) -> None:
    """ONNX Runtime goes on without a provider whose libraries it does not find: :class:`ModelError` where that was asked for."""
    needed = _NEEDED.get(device)
    if needed and needed not in providers:
        raise ModelError(
            f"project.device is {device}, but it does not start here: ONNX Runtime runs on {', '.join(providers)}",
            hint="are the libraries of CUDA, cuDNN and TensorRT that its release needs installed? or set project.device=auto",
        )
