"""Test how a build's networks are run: by the settings, by what was measured here before, or
measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

from fashionrec.catalogue.build.tuning import FILE, Plan, cache_folder, fastest, plan_for, processor
from fashionrec.common.system import available_cores
from fashionrec.config import Config, load_config
from fashionrec.models.bundle import Bundle

DETECTOR, EMBEDDER = Bundle.open(TINY / "detector"), Bundle.open(TINY / "embedder")


def settings(*sets: str) -> Config:
    return load_config(sets=sets, env={}).config


class Machine:
    """A clock on which a call takes as long as a rule says; calls at a time take no longer than
    one.
    """

    def __init__(self, rule: Callable[[int, int], float]) -> None:
        self.now, self.rule, self.calls = 0.0, rule, 0

    def clock(self) -> float:
        return self.now

    def runner(self, threads: int) -> Callable[[int], None]:
        def call(size: int) -> None:
            self.calls += 1
            self.now += self.rule(threads, size)

        return call


def test_a_worker_a_core_where_threads_of_one_call_wait_for_each_other() -> None:
    waits = Machine(lambda threads, size: 0.005 * size if threads == 1 else 0.008 * size)
    assert fastest([(waits.runner, 1.0)], 2, waits.clock) == (1, (1,))
    # (this clock adds up what two workers do)
    pays = Machine(lambda threads, size: 0.01 * size / threads**2)
    assert fastest([(pays.runner, 1.0)], 2, pays.clock)[0] == 2


def test_the_batch_that_does_most_and_no_larger_than_pays() -> None:
    weights = Machine(lambda threads, size: 0.01 + 0.001 * size)  # reading the weights once for a batch pays
    assert fastest([(weights.runner, 1.0)], 1, weights.clock) == (1, (16,))
    cache = Machine(lambda threads, size: 0.001 * size * (1 if size < 16 else 3))
    assert fastest([(cache.runner, 1.0)], 1, cache.clock) == (1, (1,))
    early = Machine(lambda threads, size: 0.001 * size * (1 if size < 4 else 3))
    assert fastest([(early.runner, 1.0)], 1, early.clock) == (1, (1,))
    assert (weights.calls, early.calls) == (1 + 3 * 2, 1 + 2 * 2)  # once to warm up, twice each size until it is slower
    slow = Machine(lambda threads, size: 2.0 * size)
    assert fastest([(slow.runner, 1.0)], 1, slow.clock) == (1, (1,))
    assert slow.calls == 3  # a call of seconds is not repeated with larger batches
    pays = Machine(lambda threads, size: 8.0 * size / threads**1.5)  # less than one photo a second
    assert fastest([(pays.runner, 1.0)], 2, pays.clock) == (2, (1,))


@pytest.mark.parametrize(
    ("cores", "threads"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 4]), (6, [1, 2, 6]), (12, [1, 2, 4, 12])]
)
def test_threads_that_divide_the_cores_are_tried(cores: int, threads: list[int]) -> None:
    tried: list[int] = []

    def runner(threads: int) -> Callable[[int], None]:
        tried.append(threads)
        return lambda size: None

    ticks = iter(range(10**6))
    fastest([(runner, 1.0)], cores, lambda: float(next(ticks)))
    assert tried == threads


@pytest.mark.parametrize(("weights", "threads"), [((1.5, 1.0), 1), ((1.0, 1.5), 2)])
def test_each_network_counts_as_often_as_a_photo_asks_it(weights: tuple[float, float], threads: int) -> None:
    """One is twice as fast with one thread, the other with two; a batch of four pays for the second
    alone.
    """
    one = Machine(lambda threads, size: 0.01 * size * threads)
    other = Machine(lambda threads, size: 0.04 * size / threads * (1.0 if size < 4 else 0.5 if size == 4 else 0.6))
    parts = [(one.runner, weights[0]), (other.runner, weights[1])]
    assert fastest(parts, 2, lambda: one.now + other.now) == (threads, (1, 4))


def test_an_error_of_a_network_ends_the_measurement() -> None:
    def runner(threads: int) -> Callable[[int], None]:
        def call(size: int) -> None:
            if size == 4:
                raise ValueError(f"no batch of {size}")

        return call

    with pytest.raises(ValueError, match="no batch of 4"):
        fastest([(runner, 1.0)], 1, Machine(lambda threads, size: 0.0).clock)


class Measured:
    """Record of how often it was measured; what is found is 1 worker with 2 threads, batches of 4
    and 8.
    """

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, *_: Any) -> Plan:
        self.times += 1
        return Plan(1, 2, 4, 8, 2)


@pytest.fixture
def measured() -> Measured:
    return Measured()


def test_few_photos_and_own_settings_are_not_measured(measured: Measured) -> None:
    plan = plan_for(DETECTOR, EMBEDDER, settings("project.threads=4"), photos=10, measure=measured)
    assert plan == Plan(4, 1, 1, 16, 4)
    assert plan_for(DETECTOR, EMBEDDER, settings(), photos=10).workers == available_cores()
    for threads, decoders in ((1, 2), (16, 16), (20, 16)):
        alone = settings(f"project.threads={threads}", "detector.batch=3")
        found = plan_for(DETECTOR, EMBEDDER, alone, photos=alone.build.measure_from - 1, measure=measured)
        assert found == Plan(threads, 1, 3, 16, decoders)
    own = settings("detector.batch=2", "embedder.batch=5", "project.threads=3")
    assert plan_for(DETECTOR, EMBEDDER, own, photos=10**6, measure=measured) == Plan(3, 1, 2, 5, 3)
    assert measured.times == 0


def test_it_is_measured_once_for_a_machine_and_its_models(measured: Measured, tmp_path: Path) -> None:
    config = settings(f"project.cache={tmp_path / 'a' / 'b'}", "project.threads=2")
    told: list[str] = []
    assert plan_for(DETECTOR, EMBEDDER, config, photos=5000, measure=measured, log=told.append) == Plan(1, 2, 4, 8, 2)
    assert plan_for(DETECTOR, EMBEDDER, config, photos=5000, measure=measured, log=told.append) == Plan(1, 2, 4, 8, 2)
    assert measured.times == 1
    assert told[0] == "measuring the fastest way to run the models here (once)"
    assert told[1:] == ["fastest here: 1 at a time with 2 threads each, photos in batches of 4, crops of 8"]
    own = settings(f"project.cache={tmp_path / 'a' / 'b'}", "project.threads=2", "detector.batch=3")
    assert plan_for(DETECTOR, EMBEDDER, own, photos=5000, measure=measured) == Plan(1, 2, 3, 8, 2)  # what is set wins
    assert measured.times == 1
    plan_for(DETECTOR, EMBEDDER, config, photos=5000, measure=measured, cpu=processor())  # this one
    assert measured.times == 1
    # other models, and as many photos as it pays for
    plan_for(None, EMBEDDER, config, photos=config.build.measure_from, measure=measured)
    assert measured.times == 2
    plan_for(DETECTOR, EMBEDDER, config, photos=5000, measure=measured, cpu="another CPU")
    assert measured.times == 3
    more = settings(f"project.cache={tmp_path / 'a' / 'b'}", "project.threads=8")
    plan_for(DETECTOR, EMBEDDER, more, photos=5000, measure=measured)
    assert measured.times == 4
    assert len(json.loads((tmp_path / "a" / "b" / FILE).read_text())) == 4


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", '"x"', '{"KEY": {"workers": "many"}}', '{"KEY": {"workers": 0}}', '{"KEY": null}']
)
def test_a_file_that_says_nothing_usable_costs_a_measurement(content: str, measured: Measured, tmp_path: Path) -> None:
    config = settings(f"project.cache={tmp_path}", "project.threads=2")
    plan_for(DETECTOR, EMBEDDER, config, photos=5000, measure=measured)
    (key,) = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(content.replace("KEY", key))
    assert plan_for(DETECTOR, EMBEDDER, config, photos=5000, measure=measured) == Plan(1, 2, 4, 8, 2)
    assert measured.times == 2
    plan_for(DETECTOR, EMBEDDER, config, photos=5000, measure=measured)
    assert measured.times == 2  # and it is good again


def test_the_processor_is_called_what_the_system_calls_it() -> None:
    listed = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    found = processor()
    assert isinstance(found, str)
    assert "model name" not in listed or f": {found}\n" in listed


def test_more_workers_than_there_are_cores_are_not_taken_from_a_file(measured: Measured, tmp_path: Path) -> None:
    config = settings(f"project.cache={tmp_path}", "project.threads=2")
    plan_for(DETECTOR, EMBEDDER, config, photos=5000, measure=measured)
    entries = json.loads((tmp_path / FILE).read_text())
    for entry in entries.values():
        entry["workers"] = 64
    (tmp_path / FILE).write_text(json.dumps(entries))
    assert plan_for(DETECTOR, EMBEDDER, config, photos=5000, measure=measured).workers == 1


def test_a_folder_that_cannot_be_written_to_costs_a_measurement_only(measured: Measured, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = settings(f"project.cache={tmp_path / 'file' / 'below'}", "project.threads=2")
    for times in (1, 2):
        assert plan_for(DETECTOR, EMBEDDER, config, photos=5000, measure=measured) == Plan(1, 2, 4, 8, 2)
        assert measured.times == times


def test_where_measurements_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(settings()) == tmp_path / "xdg" / "fashionrec"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(settings()) == tmp_path / ".cache" / "fashionrec"
    assert cache_folder(settings("project.cache=here")) == Path("here")


def test_small_models_are_really_measured_and_the_plan_can_be_run(tmp_path: Path) -> None:
    config = settings(f"project.cache={tmp_path}", "project.threads=2", "build.measure_from=1")
    plan = plan_for(DETECTOR, EMBEDDER, config, photos=10)
    assert plan.workers * plan.threads <= 2
    assert min(plan.detector_batch, plan.embedder_batch) >= 1
    assert (tmp_path / FILE).exists()
