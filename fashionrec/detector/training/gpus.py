"""Training devices, and training on several GPUs.

ultralytics starts a process per GPU, to which only the trainer's class, settings, model and
callbacks travel. So the process that began the run does not train: it watches ``results.csv``.
Output of the other processes goes into the run's log, and the run's folder stays (ultralytics would
remove it first).
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fashionrec.detector.training.ultra import quiet
from fashionrec.errors import ConfigError, FashionrecError, MissingExtra
from fashionrec.models.runs import lock_handles

_EVERY = 1.0  # seconds between checks of results.csv


def check_device(device: Any) -> int:
    """Return how many devices ``device`` names, as ultralytics reads it: ``cpu``, 0, ``0,1``, [0,
    1], -1, or None for its choice.

    Raises :class:`ConfigError` for a missing device, :class:`MissingExtra` if several need a
    package.
    """
    import torch
    from ultralytics.utils.torch_utils import parse_device, select_device

    try:
        with quiet(None):
            named = parse_device("" if device is None else device)
            select_device(named, verbose=False)
    except (ValueError, RuntimeError):
        gpus = torch.cuda.device_count()
        seen = f"torch sees {gpus or 'no'} GPU{'' if gpus == 1 else 's'}"
        raise ConfigError(f"no such device={device}: {seen}", hint="device=cpu, or omit it") from None
    count = len(named.split(",")) if named else 1
    if count > 1 and importlib.util.find_spec("cloudpickle") is None:
        raise MissingExtra("training on several GPUs needs cloudpickle", hint="pip install cloudpickle")
    return count


def launch(trainer: Any, log: Path) -> None:
    """Train on a trainer's GPUs, one process each. Raises :class:`FashionrecError` if one of them
    fails.
    """
    from ultralytics.utils import dist
    from ultralytics.utils.torch_utils import unset_deterministic

    trainer.args.rect = False  # as ultralytics does, with a warning: its order of photos would differ between processes
    resume, trainer.resume = trainer.resume, True  # otherwise the run's folder is removed
    file = None
    try:
        command, file = dist.generate_ddp_command(trainer)
        with log.open("ab") as stream:
            # if this process is killed, they continue, and own the run
            held = lock_handles(Path(trainer.save_dir))
            # `python -m` would look into the working folder first
            environment = {**os.environ, "PYTHONSAFEPATH": "1", "YOLO_OFFLINE": "true"}
            done = subprocess.run(command, stdout=stream, stderr=stream, check=False, pass_fds=held, env=environment)
    finally:
        trainer.resume = resume
        unset_deterministic()
        if file is not None:
            dist.ddp_cleanup(trainer, str(file))
    if done.returncode:
        raise FashionrecError(f"training on device={trainer.args.device} ended with exit code {done.returncode}")


@contextlib.contextmanager
def watched(results: Path, tell: Callable[[int], None]) -> Iterator[None]:
    """Call ``tell`` with the last epoch in the ``results.csv`` of other processes, each time it
    changes.
    """
    stop = threading.Event()
    told = last_epoch(results)

    def look() -> None:
        nonlocal told
        epoch = last_epoch(results)
        if epoch > told:
            told = epoch
            tell(epoch)

    def watch() -> None:
        while not stop.wait(_EVERY):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look()


def last_epoch(results: Path) -> int:
    """Return the last epoch of a ``results.csv``, 0 without any."""
    try:
        with results.open(encoding="utf-8", newline="") as file:
            epochs = [row[0].strip() for row in csv.reader(file) if row]
    except OSError:
        return 0
    return max((int(epoch) for epoch in epochs if epoch.isdigit()), default=0)
