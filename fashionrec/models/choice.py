"""Choose a model: a bundle, a checkpoint or a run (exported on the way), a hub id, or the last
promoted run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fashionrec.common.files import sha256_file
from fashionrec.common.text import shell_word
from fashionrec.config import ProjectConfig, Resolved
from fashionrec.errors import FashionrecError, ModelError
from fashionrec.models.bundle import Bundle, is_bundle
from fashionrec.models.runs import check_weights, is_run, newest_promoted, read_run

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class ModelChoice:
    """Finds the bundle for a name or the settings, and says which one and why.

    ``export_detector`` and ``export_embedder`` belong to the training plane: they export a
    checkpoint or hub id to a bundle in a folder. All methods raise :class:`ModelError`.
    """

    resolved: Resolved
    export_detector: Callable[[Path, Path], Bundle]
    export_embedder: Callable[[str, Path], Bundle]
    say: Callable[[str], None]
    warn: Callable[[str], None]

    def detector(self, source: str | None, *, catalogue: Path | None = None) -> Bundle | None:
        """Return the detector to use; None for ``none``. ``catalogue``: the bundle of the previous
        generation.
        """
        why = ""
        if source is None:
            source = self.resolved.config.detector.source
            why = " (detector.source)"
        if source is None and catalogue is not None:
            self.say(f"detector: {catalogue.name} (as the catalogue was built)")
            return Bundle.open(catalogue, "detector")
        if source is None:
            runs, refused = Path(self.resolved.config.project.runs), list[FashionrecError]()
            run = newest_promoted(runs, "detector", refused)
            for error in refused:
                self.warn(str(error))
            if run is None:
                raise ModelError(
                    f"no detector given, and no promoted run in {runs}",
                    hint="train one with `fashionrec train`, give one with --detector (after `make demo`: --config demo),"
                    " or use --detector none",
                )
            source = str(run.best)
            why = f" (the last promoted run, {run.path})"
        if source == "none":
            self.say("detector: none, every photo is one whole garment")
            return None
        self.say(f"detector: {source}{why}")
        return self.detector_of(Path(source))

    def detector_of(self, path: Path) -> Bundle:
        """Return a detector's bundle from a bundle, a run, or a checkpoint, which is exported next
        to itself once.
        """
        path = _weights_of_run(path, ("best_ft", "best"))
        if is_bundle(path):
            return Bundle.open(path, "detector", verify=True)
        if path.is_dir():
            return Bundle.open(path, "detector")  # raises with the reason
        if not path.is_file():
            raise ModelError(
                f"no such detector: {path}", hint="give a bundle, a run folder, or a checkpoint such as best.pt"
            )
        target = path.with_name(f"{path.stem}.bundle")
        if is_bundle(target):
            bundle = Bundle.open(target, "detector", verify=True)
            if bundle.source.get("sha256") == sha256_file(path):
                return bundle
        self.say(f"exporting {path} to {target}")
        return self.export_detector(path, target)

    def embedder(self, source: str | None, *, catalogue: Path | None = None) -> Bundle:
        """Return the encoder to use; ``catalogue``: the bundle of the previous generation."""
        if source is None and catalogue is not None and "embedder.source" not in self.resolved.origins:
            self.say(f"embedder: {catalogue.name} (as the catalogue was built)")
            return Bundle.open(catalogue, "embedder")
        why = "" if source else " (embedder.source)"
        if source is None and "embedder.source" not in self.resolved.origins:
            _check_shipped_name(self.resolved.config.embedder.source)
        source = source or self.resolved.config.embedder.source
        self.say(f"embedder: {source}{why}")
        return self.embedder_of(source)

    def embedder_of(self, source: str) -> Bundle:
        """Return an encoder's bundle from a bundle, a run or transformers folder, or a hub id,
        exported once and cached.
        """
        path = _weights_of_run(Path(source), ("best",))
        if is_bundle(path):
            return Bundle.open(path, "embedder", verify=True)
        if path.is_dir():
            weights = path / "model.safetensors"
            target = path.with_name(f"{path.name}.bundle")
            if is_bundle(target) and weights.is_file():
                bundle = Bundle.open(target, "embedder", verify=True)
                if bundle.source.get("sha256") == sha256_file(weights):
                    return bundle
            return self.export_embedder(str(path), target)
        check_encoder_name(source, self.resolved.config.project)
        target = Path(self.resolved.config.project.data) / "bundles" / source.replace("/", "--")
        if is_bundle(target):
            return Bundle.open(target, "embedder", verify=True)
        return self.export_embedder(source, target)


def check_encoder_name(source: str, project: ProjectConfig) -> None:
    """Raise :class:`ModelError` unless a source that does not exist here can be a Hugging Face id.

    Such an id is ``owner/name``, and no path below the folders of the project. Anything else would
    be looked up in the network for seconds, to no avail.
    """
    inside = any(Path(source).is_relative_to(folder) for folder in (project.runs, project.data) if folder != ".")
    if inside or not _HUB_ID.fullmatch(source):
        raise ModelError(
            f"no such encoder: {source}",
            hint="give a bundle, a run folder, a folder written by save_pretrained, or a Hugging Face id (owner/name)",
        )


def _check_shipped_name(name: str) -> None:
    """Refuse a local folder with the name of the default encoder, which is a hub id: anybody may
    have put it here.
    """
    if Path(name).exists():
        raise ModelError(
            f"{name} is both the default encoder on the hub and a folder here",
            hint=f"for the folder: --set {shell_word(f'embedder.source=./{name}')}; for the hub, rename the folder",
        )


def _weights_of_run(path: Path, names: Sequence[str]) -> Path:
    check_weights(path)
    if is_run(path):
        run = read_run(path)
        for name in names:
            if name in run.weights:
                return run.weights_path(name)
        raise ModelError(f"run {path} has no finished weights", hint=f"its status is {run.status}")
    return path
