"""Which model is meant: a bundle, a checkpoint or a run (exported on the way), a hub id, or the newest promoted run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fashionrec.common.files import sha256_file
from fashionrec.common.text import shell_word
from fashionrec.config import Resolved
from fashionrec.errors import FashionrecError, ModelError
from fashionrec.models.bundle import Bundle, is_bundle
from fashionrec.models.runs import check_weights, is_run, newest_promoted, read_run


@dataclass(frozen=True)
class ModelChoice:
    """Finds the bundle that a name means, or the settings where nothing is named, and says which one and why.

    ``export_detector`` and ``export_embedder`` are the training plane's: they make a bundle of a checkpoint or hub id, in a
    folder. All methods raise :class:`ModelError`.
    """

    resolved: Resolved
    export_detector: Callable[[Path, Path], Bundle]
    export_embedder: Callable[[str, Path], Bundle]
    say: Callable[[str], None]
    warn: Callable[[str], None]

    def detector(self, source: str | None, *, catalogue: Path | None = None) -> Bundle | None:
        """Return the detector to use; None for ``none``. ``catalogue``: the bundle of the one that is built on."""
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
                    f"no detector is named, and there is no promoted run under {runs}",
                    hint="train one with `fashionrec train`, name one with --detector, or index photos whole: --detector none",
                )
            source = str(run.best)
            why = f" (the newest promoted run, {run.path})"
        if source == "none":
            self.say("detector: none, every photo is one whole garment")
            return None
        self.say(f"detector: {source}{why}")
        return self.detector_of(Path(source))

    def detector_of(self, path: Path) -> Bundle:
        """Return a detector's bundle from a bundle, a run's folder, or a checkpoint, which is exported beside itself once."""
        path = _weights_of_run(path, ("best_ft", "best"))
        if is_bundle(path):
            return Bundle.open(path, "detector", verify=True)
        if path.is_dir():
            return Bundle.open(path, "detector")  # says what is wrong with it
        if not path.is_file():
            raise ModelError(
                f"no detector at {path}", hint="give a bundle, a run's folder, or a checkpoint such as best.pt"
            )
        target = path.with_name(f"{path.stem}.bundle")
        if is_bundle(target):
            bundle = Bundle.open(target, "detector", verify=True)
            if bundle.source.get("sha256") == sha256_file(path):
                return bundle
        self.say(f"exporting {path} to {target}")
        return self.export_detector(path, target)

    def embedder(self, source: str | None, *, catalogue: Path | None = None) -> Bundle:
        """Return the encoder to use; ``catalogue``: the bundle of the one that is built on."""
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
        """Return an encoder's bundle from a bundle, a run's or transformers folder, or a hub id, exported once and kept."""
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
        target = Path(self.resolved.config.project.data) / "bundles" / source.replace("/", "--")
        if is_bundle(target):
            return Bundle.open(target, "embedder", verify=True)
        return self.export_embedder(source, target)


def _check_shipped_name(name: str) -> None:
    """Refuse a folder with the name of the shipped settings' encoder, which is one on the hub: anybody may have put it here."""
    if Path(name).exists():
        raise ModelError(
            f"{name} is the encoder of the shipped settings, and a folder here, too",
            hint=f"for the folder: --set {shell_word(f'embedder.source=./{name}')}; for the encoder, rename the folder",
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
