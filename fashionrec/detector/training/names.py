"""Names of ultralytics' detectors: those in its package, those it can download, and the nearest to
a misspelt one.

A name ending in ``.pt`` is a checkpoint, one ending in ``.yaml`` an architecture to train from
scratch, and a name without either is a checkpoint, as in ``yolo``: ``yolov8l`` is ``yolov8l.pt``.
"""

from __future__ import annotations

import glob
import importlib.util
import re
from functools import cache
from pathlib import Path

from fashionrec.common.text import shell_word
from fashionrec.config import config_dir, is_bare, nearest
from fashionrec.errors import ModelError

_SUFFIXES = (".pt", ".yaml", ".yml")
#: Name parts of the package's other models: other tasks, and open-vocabulary detectors.
_OTHER = re.compile(
    r"-(cls|seg|pose|obb|sem|depth|reid|world|worldv2|oiv7|objv1|grayscale)\b|^(yoloe|yolo_nas|.*sam)", re.I
)


def model_file(model: str) -> str:
    """Return what ultralytics should load for ``model``: an existing file, or a name in its
    package.

    A bare architecture name (``yolov8l.yaml``) means ours or the package's before a file in the
    working folder; a bare checkpoint (``yolov8l.pt``) means the file in the working folder before a
    download; a path is a path. Nothing is loaded or downloaded. Raises :class:`ModelError` with the
    nearest existing name.
    """
    path = Path(model)
    bare = is_bare(model)
    if bare and path.suffix in (".yaml", ".yml") and (known := known_yaml(path)) is not None:
        return str(known) if known.parent == config_dir() / "models" else model
    if path.suffix in _SUFFIXES and path.is_file():
        return model
    if "://" in model and path.suffix == ".pt":
        return model
    name = path.name
    if _OTHER.search(path.stem):
        raise ModelError(f"{model} is not a detector of ultralytics", hint=_hint(_OTHER.sub("", name)))
    if path.suffix in (".yaml", ".yml"):
        if not bare:
            return str(_shipped(path))
        raise ModelError(f"unknown architecture {model}", hint=_hint(name))
    stem = path.stem if path.suffix == ".pt" else name
    if f"{stem}.pt" in checkpoints():
        return str(path.with_name(f"{stem}.pt"))
    if path.suffix == ".pt" and not bare:
        raise ModelError(f"no such checkpoint: {model}", hint=_hint(name))
    if f"{stem}.yaml" in architectures():
        raise ModelError(
            f"no weights of {stem} are published", hint=f"train it from scratch: {shell_word(f'{stem}.yaml')}"
        )
    if path.suffix != ".pt" and path.is_file():
        raise ModelError(f"{model} is neither a checkpoint (.pt) nor a model YAML", hint="for example yolov8l.pt")
    raise ModelError(f"unknown model {model}", hint=_hint(name))


def model_note(model: str) -> str:
    """Return a note on which one a bare name means, if the working folder has a file of that name
    too; otherwise an empty text.
    """
    path = Path(model)
    if not is_bare(model):
        return ""
    if path.suffix in (".yaml", ".yml") and path.exists() and known_yaml(path) is not None:
        return f"using the architecture {model}; the file in this folder is ./{model}"
    weights = path if path.suffix == ".pt" else Path(f"{model}.pt")
    if weights.suffix == ".pt" and weights.is_file() and (weights == path or weights.name in checkpoints()):
        return f"using {weights} from the working folder"
    return ""


def is_known(model: str) -> bool:
    """Return whether a bare name is an architecture or a published checkpoint, whatever the working
    folder contains.
    """
    path = Path(model)
    if not is_bare(model) or path.suffix == ".pt":
        return False
    return known_yaml(path) is not None if path.suffix in (".yaml", ".yml") else f"{model}.pt" in checkpoints()


def _all_sizes(path: Path) -> Path:
    """Return the package's file for an architecture: one for all sizes, ``yolov8.yaml`` for
    ``yolov8l.yaml``.
    """
    yaml = path.with_suffix(".yaml").name
    for name in (yaml, re.sub(r"^(yolov?\d+)[a-z]", r"\1", yaml)):
        if found := sorted((_package() / "cfg" / "models").rglob(glob.escape(name))):
            return found[0]
    raise ModelError(f"unknown architecture {path.name}", hint=_hint(path.name))


def known_yaml(path: Path) -> Path | None:
    """Return the file of a bare YAML name: ours, or the package's; None for other names."""
    ours = config_dir() / "models" / path.name
    if ours.is_file():
        return ours
    return _all_sizes(path) if path.with_suffix(".yaml").name in architectures() else None


@cache
def architectures() -> tuple[str, ...]:
    """Return the names of the detectors' YAML files in the installed package, in every size:
    ``yolo11n.yaml``, ``rtdetr-l.yaml``.
    """
    found = set()
    for file in (_package() / "cfg" / "models").rglob("*.yaml"):
        if _OTHER.search(file.stem):
            continue
        found.add(file.name)
        family = re.match(r"yolov?\d+(?=-|\.)", file.name)
        if family:  # one file for all sizes, each an entry of its `scales`
            sizes = re.findall(r"^  ([a-z]): *\[", file.read_text(encoding="utf-8"), re.MULTILINE)
            found |= {f"{family[0]}{size}{file.name[family.end() :]}" for size in sizes}
    return tuple(sorted(found))


def checkpoints() -> tuple[str, ...]:
    """Return the names of pretrained detectors that the installed package can download."""
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

    return tuple(sorted(name for name in GITHUB_ASSETS_NAMES if name.endswith(".pt") and not _OTHER.search(name[:-3])))


def _hint(name: str) -> str:
    stem, suffix = (
        (name[: -len(Path(name).suffix)], Path(name).suffix) if Path(name).suffix in _SUFFIXES else (name, "")
    )
    choices = list(architectures() if suffix in (".yaml", ".yml") else checkpoints())
    found = nearest(stem.lower(), [Path(choice).stem for choice in choices])
    return found.replace("?", f"{suffix or '.pt'}?") if found else "for example yolov8l.pt or yolo11n.yaml"


def _package() -> Path:
    spec = importlib.util.find_spec("ultralytics")
    assert spec is not None  # callers have imported it
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def _shipped(path: Path) -> Path:
    """Return ``configs/models/x.yaml`` also from other working directories and
    installed packages.
    """
    candidate = config_dir() / "models" / path.name
    if candidate.exists():
        return candidate
    raise ModelError(f"no such model: {path}", hint="give a path, or a name of ultralytics such as yolov8n.yaml")
