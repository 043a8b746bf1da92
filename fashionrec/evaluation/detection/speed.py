"""Measure the speed and memory of a detector on this machine in ONNX Runtime, as it is served.

Two speeds: end to end, ``Detector.predict`` from decoded photos to boxes; and the network alone,
from prepared input to raw output. A speed is that of the median call, after a warm-up.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.common.system import peak_memory
from fashionrec.config import DetectorConfig, ImagesConfig
from fashionrec.errors import FashionrecError

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.detector.detect import Detector

Clock = Callable[[], float]
_CALLS = 3  # at least
_SLOWER = 0.9  # of the best so far: larger batches are not tried


def speeds(
    detector: Detector,
    photos: Sequence[Image.Image],
    batches: Sequence[int],
    seconds: float,
    clock: Clock = time.perf_counter,
) -> dict[str, dict[str, float]]:
    """Return photos per second by kind (``end_to_end``, ``network``) and batch size, as text:
    ``{"network": {"1": 31.2, "8": 40.1}}``.

    Batches grow until one is slower than those before, does not fit into memory, or exceeds the
    graph's limit.
    """
    sizes = sorted({1, *(size for size in batches if detector.most is None or size <= detector.most)})
    found: dict[str, dict[str, float]] = {"end_to_end": {}, "network": {}}
    for kind, rates in found.items():
        for size in sizes:
            batch = [photos[n % len(photos)] for n in range(size)]
            values = detector.inputs(batch)
            call = partial(detector.answer, values) if kind == "network" else partial(detector.predict, batch)
            try:
                rate = size / median_seconds(call, seconds, clock)
            except FashionrecError:
                raise
            except Exception:  # onnxruntime's own, for a device's memory
                if size == 1:
                    raise
                break
            rates[str(size)] = round(rate, 3)
            if rate < _SLOWER * max(rates.values()):
                break
    return found


def median_seconds(call: Callable[[], Any], seconds: float, clock: Clock = time.perf_counter) -> float:
    """Return the seconds of the median call, of at least three and as many as fit into ``seconds``,
    after a warm-up.
    """
    call()
    taken: list[float] = []
    while len(taken) < _CALLS or sum(taken) < seconds:
        start = clock()
        call()
        taken.append(clock() - start)
    return statistics.median(taken)


def memory(
    bundle: Path, photo: Path, config: DetectorConfig, limits: ImagesConfig, *, threads: int, device: str
) -> int | None:
    """Return the peak memory in bytes of a fresh process that opened a bundle and predicted one
    photo.

    It includes Python, ONNX Runtime and weights, not a GPU's memory. None if the system does not
    provide it.
    """
    code = "import sys; from fashionrec.evaluation.detection.speed import peak; print(peak(*sys.argv[1:]))"
    settings = json.dumps([config.model_dump(), limits.model_dump()])
    command = [sys.executable, "-P", "-c", code, str(bundle), str(photo), settings, str(threads), device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FashionrecError(
            f"a separate process cannot serve {bundle}: {(done.stderr.splitlines() or [''])[-1][:160]}"
        )
    found = int(done.stdout.split()[-1])
    return found or None


def peak(bundle: str, photo: str, settings: str, threads: str, device: str) -> int:
    """Predict, and return this process's peak memory in bytes; 0 if unknown."""
    from fashionrec.detector.detect import Detector
    from fashionrec.photos.images import read_photo

    config, limits = json.loads(settings)
    detector = Detector.open(bundle, DetectorConfig.model_validate(config), threads=int(threads), device=device)
    detector.predict([read_photo(Path(photo), ImagesConfig.model_validate(limits)).pixels])
    return peak_memory()
