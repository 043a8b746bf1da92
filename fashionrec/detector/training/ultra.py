"""The one door to ultralytics: loaded so that it installs nothing, reports nothing, and keeps no settings of its own.

Training plane. ultralytics keeps a settings file that may send data sets to a hidden global folder, prints on stdout,
fetches a font for its plots, and may install packages; none of that happens through here.
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
    """The ultralytics module, settled. Safe to call often. Raises :class:`MissingExtra` for a version that cannot be guarded."""
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "1"  # for processes that are started from here, too
    if "ultralytics" not in sys.modules:
        os.environ["YOLO_CONFIG_DIR"] = str(own_folder())
        os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    with quiet(None), _cores_kept(), _offline():
        import ultralytics
        from ultralytics.utils import SETTINGS, USER_CONFIG_DIR

    dict.__setitem__(SETTINGS, "sync", False)
    dict.__setitem__(SETTINGS, "weights_dir", str(own_folder() / "weights"))  # not ./weights, which is anybody's
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
    """A folder of this process alone, for what ultralytics is given to read; removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="fashionrec-ultralytics-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def load_yolo(model: str) -> Any:
    """A model from a checkpoint, a model's YAML, or a name of ultralytics' own (``yolov8l``, ``yolo11n.yaml``).

    Nothing of a checkpoint is run (:mod:`pickles`), and it must be whole: every tensor of its architecture,
    none besides, all finite. A YAML holds layers and numbers only. Raises :class:`ModelError`; for a misspelt name before
    anything is fetched, with the nearest real one.
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
                f"{model} is not here and could not be downloaded: {reason}",
                hint=f"put the file there, or start from scratch with {shell_word(f'{path.stem}.yaml')}",
            ) from None
        raise ModelError(f"{model} cannot be loaded: {reason}", hint="is it a detector of ultralytics?") from None
    if yolo.task != "detect":
        raise ModelError(f"{model} is for {yolo.task}, not for detection")
    if not written:
        yolo.overrides["data"] = None  # a checkpoint's own: never to be opened
        from fashionrec.detector.training.pickles import is_trusted

        if not is_trusted(path):  # which may be built of layers that nobody here knows
            check_whole(yolo.model, path)
    return yolo


def check_whole(model: Any, path: Path) -> None:
    """Raise :class:`ModelError` unless a loaded model has the tensors of the architecture that it names, all finite."""
    import copy

    import torch
    from ultralytics.nn.tasks import parse_model

    model = getattr(model, "student_model", model)
    document = getattr(model, "yaml", None)
    if not isinstance(document, dict):
        raise ModelError(f"{path} does not say which architecture it is", hint="is it a detector of ultralytics?")
    check_architecture(document, str(path))
    names = getattr(model, "names", None)
    if not isinstance(names, (dict, list)) or len(names) != document.get("nc"):
        count = len(names) if isinstance(names, (dict, list)) else "no"
        raise ModelError(f"{path} is not whole: it has {count} class names, and {document.get('nc')} classes")
    fused = model.is_fused()
    try:
        with quiet(None), contextlib.nullcontext() if fused else torch.device("meta"):
            layers, _ = parse_model(copy.deepcopy(document), ch=document.get("channels", 3), verbose=False)
            if fused:
                blank: Any = object.__new__(type(model))
                torch.nn.Module.__init__(blank)
                blank.model = layers
                layers = blank.fuse(verbose=False).model
    except Exception as error:  # of whatever layer does not fit to the one before
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ModelError(f"{path} names an architecture that cannot be built: {reason}") from None
    expected = {f"model.{name}": tuple(tensor.shape) for name, tensor in layers.state_dict().items()}
    check_tensors(path, expected, model.state_dict(), harmless=lambda name: name.endswith("num_batches_tracked"))


def _own_yaml(path: Path, name: str) -> Path:
    """A copy of a model's YAML that ultralytics may read, under the name that was asked for, which tells the size."""
    folder = own_folder() / "models"
    folder.mkdir(exist_ok=True)
    return own_copy(path, folder, name)


_STAMP = "fashionrec"


def stamp(weights: Path, document: dict[str, Any]) -> None:
    """Write into a checkpoint of ours what it must not lose when it is copied: how the pixels were prepared."""
    import torch

    from fashionrec.detector.training.pickles import load_pickle

    checkpoint = load_pickle(weights)
    checkpoint[_STAMP] = document
    temporary = temporary_beside(weights)
    torch.save(checkpoint, temporary)
    replace(temporary, weights)


def stamped(yolo: Any) -> dict[str, Any]:
    """What :func:`stamp` wrote into the checkpoint of a loaded model; empty for one that is not of ours."""
    checkpoint = getattr(yolo, "ckpt", None)
    found = checkpoint.get(_STAMP) if isinstance(checkpoint, dict) else None
    return dict(found) if isinstance(found, dict) else {}


@contextlib.contextmanager
def quiet(log: Path | None) -> Iterator[None]:
    """Send what ultralytics prints (it prints on stdout) into a file, or nowhere."""
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
def translated(what: str, log: Path) -> Iterator[None]:
    """ultralytics' failures while ``what`` as one line that names its log."""
    try:
        yield
    except FashionrecError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FashionrecError(f"{what} failed: {reason}", hint=f"the trainer's own words are in {log}") from error


@contextlib.contextmanager
def _cores_kept() -> Iterator[None]:
    """As many threads as torch would take without ultralytics.

    It sets ``OMP_NUM_THREADS=1`` where nobody set it, and torch to one core fewer than there are whenever it selects the CPU:
    of two cores one, and for all that this process trains afterwards, too.
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
    """While it is imported ultralytics asks two name servers whether it is online, to look for updates and to report its use."""
    before = os.environ.get("YOLO_OFFLINE")
    os.environ["YOLO_OFFLINE"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["YOLO_OFFLINE"]
        else:
            os.environ["YOLO_OFFLINE"] = before
