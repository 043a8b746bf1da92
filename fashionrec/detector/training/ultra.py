"""The only import of ultralytics: loaded so that it installs nothing, reports nothing, and keeps no
settings of its own.

Training plane. ultralytics keeps a settings file that may redirect datasets to a hidden global
folder, prints on stdout, downloads a font for its plots, and may install packages; all of that is
prevented here.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from fashionrec.common.files import temporary_beside
from fashionrec.common.system import replace
from fashionrec.common.text import shell_word
from fashionrec.config import is_bare
from fashionrec.detector.training.architecture import check_architecture, own_copy
from fashionrec.detector.training.names import known_yaml, model_file
from fashionrec.detector.training.whole import check_file, check_tensors
from fashionrec.errors import FashionrecError, ModelError


def load_ultralytics() -> Any:
    """Return the configured ultralytics module; can be called repeatedly. Raises
    :class:`MissingExtra` for a version that cannot be guarded.
    """
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "1"  # for child processes, too
    if "ultralytics" not in sys.modules:
        os.environ["YOLO_CONFIG_DIR"] = str(own_folder())
        os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    with quiet(None), _cores_kept(), _offline():
        import ultralytics
        from ultralytics.utils import SETTINGS, USER_CONFIG_DIR

    dict.__setitem__(SETTINGS, "sync", False)
    dict.__setitem__(
        SETTINGS, "weights_dir", str(own_folder() / "weights")
    )  # not ./weights, which anybody could have made
    from fashionrec.detector.training import guard

    guard.install()
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):  # which ultralytics would download
        if not (font := Path(USER_CONFIG_DIR) / name).exists():
            import matplotlib

            font.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", font)
    return ultralytics


@cache
def own_folder() -> Path:
    """Return a folder of this process only, for files that ultralytics reads; removed when the
    process ends.
    """
    folder = Path(tempfile.mkdtemp(prefix="fashionrec-ultralytics-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def load_yolo(model: str) -> Any:
    """Load a model from a checkpoint, a model YAML, or a name of ultralytics (``yolov8l``,
    ``yolo11n.yaml``).

    Nothing in a checkpoint is executed (:mod:`pickles`), and it must be complete: exactly the
    tensors of its architecture, all finite. A YAML contains only layers and numbers. Raises
    :class:`ModelError`; for a misspelt name before anything is downloaded, with the nearest
    existing one.
    """
    ultralytics = load_ultralytics()
    file = model_file(model)
    path = Path(file)
    written = path.suffix in (".yaml", ".yml")
    if written:
        path = _own_yaml((known_yaml(path) if is_bare(file) else None) or path, Path(model).name)
    elif path.is_file():
        check_file(path)
    try:
        with quiet(None):
            yolo = (ultralytics.RTDETR if path.name.startswith("rtdetr") else ultralytics.YOLO)(
                str(path) if written else file
            )
    except ModelError:
        raise
    except Exception as error:  # pickle, file, download and parser errors
        reason = " ".join(str(error).split())[:160]
        if path.suffix == ".pt" and not path.exists():
            raise ModelError(
                f"{model} does not exist here and could not be downloaded: {reason}",
                hint=f"place the file there, or start from scratch with {shell_word(f'{path.stem}.yaml')}",
            ) from None
        raise ModelError(f"{model} cannot be loaded: {reason}", hint="is it a detector of ultralytics?") from None
    if yolo.task != "detect":
        raise ModelError(f"{model} is for {yolo.task}, not for detection")
    if not written:
        yolo.overrides["data"] = None  # a checkpoint's own data is never opened
        from fashionrec.detector.training.pickles import is_trusted

        if not is_trusted(path):  # which may contain unknown layers
            check_whole(yolo.model, path)
    return yolo


def check_whole(model: Any, path: Path) -> None:
    """Raise :class:`ModelError` unless a loaded model has exactly the tensors of its architecture,
    all finite.
    """
    import copy

    import torch
    from ultralytics.nn.tasks import parse_model

    model = getattr(model, "student_model", model)
    document = getattr(model, "yaml", None)
    if not isinstance(document, dict):
        raise ModelError(f"{path} does not name its architecture", hint="is it a detector of ultralytics?")
    check_architecture(document, str(path))
    names = getattr(model, "names", None)
    if not isinstance(names, (dict, list)) or len(names) != document.get("nc"):
        count = len(names) if isinstance(names, (dict, list)) else "no"
        raise ModelError(f"{path} is inconsistent: it has {count} class names, but nc is {document.get('nc')}")
    fused = model.is_fused()
    try:
        with quiet(None), contextlib.nullcontext() if fused else torch.device("meta"):
            layers, _ = parse_model(copy.deepcopy(document), ch=document.get("channels", 3), verbose=False)
            if fused:
                blank: Any = object.__new__(type(model))
                torch.nn.Module.__init__(blank)
                blank.model = layers
                layers = blank.fuse(verbose=False).model
    except Exception as error:  # layers that do not fit together may raise anything
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ModelError(f"{path} names an unusable architecture: {reason}") from None
    expected = {f"model.{name}": tuple(tensor.shape) for name, tensor in layers.state_dict().items()}
    check_tensors(path, expected, model.state_dict(), harmless=lambda name: name.endswith("num_batches_tracked"))


def _own_yaml(path: Path, name: str) -> Path:
    """Return a copy of a model YAML for ultralytics under the requested name, which determines the
    size.
    """
    folder = own_folder() / "models"
    folder.mkdir(exist_ok=True)
    return own_copy(path, folder, name)


_STAMP = "fashionrec"


def stamp(weights: Path, document: dict[str, Any]) -> None:
    """Write metadata that must survive copying into a checkpoint: how the pixels were prepared."""
    import torch

    from fashionrec.detector.training.pickles import load_pickle

    checkpoint = load_pickle(weights)
    checkpoint[_STAMP] = document
    temporary = temporary_beside(weights)
    torch.save(checkpoint, temporary)
    replace(temporary, weights)


def stamped(yolo: Any) -> dict[str, Any]:
    """Return what :func:`stamp` wrote into the checkpoint of a loaded model; empty for others."""
    checkpoint = getattr(yolo, "ckpt", None)
    found = checkpoint.get(_STAMP) if isinstance(checkpoint, dict) else None
    return dict(found) if isinstance(found, dict) else {}


@contextlib.contextmanager
def quiet(log: Path | None) -> Iterator[None]:
    """Redirect ultralytics' output (it prints on stdout) into a file, or discard it."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context((log or Path(os.devnull)).open("a", encoding="utf-8", errors="replace"))
        stack.enter_context(contextlib.redirect_stdout(stream))
        stack.enter_context(contextlib.redirect_stderr(stream))
        handlers = [h for h in logging.getLogger("ultralytics").handlers if isinstance(h, logging.StreamHandler)]
        before = [(handler, handler.setStream(stream)) for handler in handlers]
        try:
            yield
        finally:
            for handler in logging.getLogger("ultralytics").handlers:
                if isinstance(handler, logging.StreamHandler):
                    handler.setStream(sys.__stderr__ if handler.stream is stream else handler.stream)
            for handler, old in before:
                handler.setStream(old)


@contextlib.contextmanager
def failures_in_one_line(what: str, log: Path) -> Iterator[None]:
    """Report ultralytics' failures during ``what`` as one line that names its log."""
    try:
        yield
    except FashionrecError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FashionrecError(f"{what} failed: {reason}", hint=f"details: {log}") from error


@contextlib.contextmanager
def _cores_kept() -> Iterator[None]:
    """Keep torch's number of threads as it was before ultralytics.

    It sets ``OMP_NUM_THREADS=1`` by default, and torch to one core fewer than available whenever it
    selects the CPU: one of two cores, also for anything that this process trains afterwards.
    """
    own = os.environ.get("OMP_NUM_THREADS")
    import torch

    yield
    from ultralytics.utils import torch_utils

    torch_utils.NUM_THREADS = torch.get_num_threads()  # type: ignore[attr-defined]
    if own is None:
        os.environ.pop("OMP_NUM_THREADS", None)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Prevent ultralytics, while it is imported, from contacting two name servers to check for
    updates and report its use.
    """
    before = os.environ.get("YOLO_OFFLINE")
    os.environ["YOLO_OFFLINE"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["YOLO_OFFLINE"]
        else:
            os.environ["YOLO_OFFLINE"] = before
