"""Choose how networks run during a build: how many at a time, with how many threads and in which
batches.

The fastest way depends on machine and models, so it is measured once for each and kept in the
user's cache folder. It affects the speed of a build, not its results (beyond rounding).
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.common.documents import read_json
from fashionrec.common.files import dump_json, fingerprint, write_atomic
from fashionrec.common.system import available_cores, user_cache
from fashionrec.common.text import plural

if TYPE_CHECKING:
    from fashionrec.config import Config
    from fashionrec.models.bundle import Bundle

#: Maps a number of threads to a function that runs one batch of a size.
Runner = Callable[[int], Callable[[int], object]]
Clock = Callable[[], float]
#: Finds a plan for the models on a number of cores: :func:`measured`.
Measure = Callable[["Bundle | None", "Bundle", "Config", int, Clock], "Plan"]

FILE = "tuning.json"
#: Batch sizes to try, and garments per photo for weighing the two networks.
_BATCHES = (1, 4, 16)
_GARMENTS = 1.5
#: A larger batch must be this much faster; and none is tried after a call of this many seconds.
_FASTER = 1.03
_LONG = 1.0
_DECODERS = 16  # maximum number of processes


@dataclass(frozen=True)
class Plan:
    """A plan: ``workers`` run one network each, with ``threads`` threads and in batches;
    ``decoders`` are processes that decode photos.
    """

    workers: int
    threads: int
    detector_batch: int
    embedder_batch: int
    decoders: int


def plan_for(
    detector: Bundle | None,
    embedder: Bundle,
    config: Config,
    *,
    photos: int = 0,
    log: Callable[[str], None] | None = None,
    clock: Clock = time.perf_counter,
    measure: Measure | None = None,
    cpu: str | None = None,
) -> Plan:
    """Return the plan by the settings; what they leave open is looked up, measured or guessed.

    It is measured if ``photos`` are enough (``build.measure_from``). The guess suits CPUs: one
    worker per core, photos one at a time, crops by the dozen. Measurements are kept for the
    processor ``cpu`` (default: this one).
    """
    cores = config.project.threads or available_cores()
    guess = Plan(cores, 1, 1, 16, max(2, min(cores, _DECODERS)))
    own = (config.detector.batch, config.embedder.batch)
    if all(own) or photos < config.build.measure_from:
        return _with_own(guess, own)
    key = fingerprint(_situation(detector, embedder, config, cores, cpu or processor()))
    file = cache_folder(config) / FILE
    kept = _kept(file)
    plan = _understood(kept.get(key), cores)
    if plan is None:
        if log:
            log("measuring the fastest way to run the models here (once)")
        plan = (measure or measured)(detector, embedder, config, cores, clock)
        _keep(file, {**kept, key: asdict(plan)})
        if log:
            log(
                f"fastest here: {plan.workers} at a time with {plural(plan.threads, 'thread')} each, photos in batches of"
                f" {plan.detector_batch}, crops of {plan.embedder_batch}"
            )
    return _with_own(plan, own)


def cache_folder(config: Config) -> Path:
    """Return ``project.cache``, or the system's cache folder. It may not exist or be read-only."""
    if config.project.cache:
        return Path(config.project.cache)
    return user_cache()


def processor() -> str:
    """Return the CPU's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def fastest(runners: Sequence[tuple[Runner, float]], cores: int, clock: Clock) -> tuple[int, tuple[int, ...]]:
    """Return the threads per call and each runner's batch that minimise the time per photo.

    Each runner is weighed by its calls per photo. As many calls run at a time as ``cores`` allow.
    """
    best: tuple[float, int, tuple[int, ...]] | None = None
    for threads in sorted({1, *(part for part in (2, 4) if cores % part == 0 and part <= cores), cores}):
        seconds, batches = 0.0, []
        for runner, weight in runners:
            rate, batch = _best_batch(runner(threads), cores // threads, clock)
            seconds += weight / rate
            batches.append(batch)
        if best is None or seconds < best[0]:
            best = seconds, threads, tuple(batches)
    assert best is not None
    return best[1], best[2]


def _best_batch(call: Callable[[int], object], workers: int, clock: Clock) -> tuple[float, int]:
    best, chosen = 0.0, 1
    call(1)
    for size in _BATCHES:
        taken = min(_together(call, size, workers, clock) for _ in range(2))
        rate = workers * size / taken
        if rate > best * _FASTER:
            best, chosen = rate, size
        elif rate < best / _FASTER:
            break
        if taken > _LONG:
            break
    return best, chosen


def _together(call: Callable[[int], object], size: int, workers: int, clock: Clock) -> float:
    """Return the seconds of ``workers`` simultaneous calls."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            call(size)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(workers)]
    start = clock()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return max(clock() - start, 1e-9)


def measured(detector: Bundle | None, embedder: Bundle, config: Config, cores: int, clock: Clock) -> Plan:
    """Measure the fastest plan for these models on ``cores`` cores."""
    runners: list[tuple[Runner, float]] = [(_embedding(embedder, config), _GARMENTS)]
    if detector is not None:
        runners.append((_detecting(detector, config), 1.0))
    threads, batches = fastest(runners, cores, clock)
    return Plan(cores // threads, threads, batches[1] if detector else 1, batches[0], max(2, min(cores, _DECODERS)))


def _embedding(bundle: Bundle, config: Config) -> Runner:
    import numpy as np

    from fashionrec.embedder.embed import Embedder

    def runner(threads: int) -> Callable[[int], object]:
        embedder = Embedder(bundle, threads=threads, device=config.project.device)
        return lambda size: embedder.answer(np.zeros((size, 3, *bundle.spec["image"]["crop"]), np.float32))

    return runner


def _detecting(bundle: Bundle, config: Config) -> Runner:
    import numpy as np
    from PIL import Image

    from fashionrec.detector.detect import Detector

    def runner(threads: int) -> Callable[[int], object]:
        detector = Detector.of_config(bundle, config.detector, threads=threads, device=config.project.device)
        values = detector.inputs([Image.new("RGB", (detector.imgsz * 3 // 4, detector.imgsz), "white")])
        return lambda size: detector.answer(np.repeat(values, min(size, detector.most or size), axis=0))

    return runner


def _situation(detector: Bundle | None, embedder: Bundle, config: Config, cores: int, cpu: str) -> dict[str, Any]:
    import onnxruntime

    return {
        "processor": cpu,
        "cores": cores,
        "device": config.project.device,
        "providers": onnxruntime.get_available_providers(),
        "onnxruntime": onnxruntime.__version__,
        "detector": detector.fingerprint if detector else None,
        "rectangular": config.detector.rectangular,
        "embedder": embedder.fingerprint,
    }


def _with_own(plan: Plan, own: tuple[int, int]) -> Plan:
    return Plan(plan.workers, plan.threads, own[0] or plan.detector_batch, own[1] or plan.embedder_batch, plan.decoders)


def _kept(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _understood(entry: Any, cores: int) -> Plan | None:
    """Parse a stored plan; return None if it is invalid or needs more than there is."""
    try:
        plan = Plan(**entry)
        numbers = asdict(plan).values()
        good = all(type(number) is int and 1 <= number <= 1024 for number in numbers)
    except TypeError:
        return None
    return plan if good and plan.workers * plan.threads <= cores else None


def _keep(file: Path, entries: dict[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, dump_json(entries))
    except OSError:
        pass  # read-only, full, or no home: it is measured again next time
