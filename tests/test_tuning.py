"""How a build's networks are run: by the settings, by what was measured here before, or measured."""

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
    """A clock on which a call takes as long as a rule says; calls at a time take no longer than one."""

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
    slow = Machine(lambda threads, size: 2.0 * size)
    assert fastest([(slow.runner, 1.0)], 1, slow.clock) == (1, (1,))
    assert slow.calls <= 4  # a call of seconds is not repeated with larger batches


class Measured:
    """How often it was measured; what is found is 1 worker with 2 threads, batches of 4 and 8."""

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
    own = settings("detector.batch=2", "embedder.batch=5", "project.threads=3")
    assert plan_for(DETECTOR, EMBEDDER, own, photos=10**6, measure=measured) == Plan(3, 1, 2, 5, 3)
    assert measured.times == 0


def test_it_is_measured_once_for_a_machine_and_its_models(measured: Measured, tmp_path: Path) -> None:
    config = settings(f"project.cache={tmp_path / 'a' / 'b'}", "project.threads=2")
    told: list[str] = []
    assert plan_for(DETECTOR, EMBEDDER, config, photos=5000, measure=measured, log=told.append) == Plan(1, 2, 4, 8, 2)
    assert plan_for(DETECTOR, EMBEDDER, config, photos=5000, measure=measured, log=told.append) == Plan(1, 2, 4, 8, 2)
    assert measured.times == 1
    assert told[0] == "measuring how the models run fastest here (once)"
    assert len(told) == 2
    own = settings(f"project.cache={tmp_path / 'a' / 'b'}", "project.threads=2", "detector.batch=3")
    assert plan_for(DETECTOR, EMBEDDER, own, photos=5000, measure=measured) == Plan(1, 2, 3, 8, 2)  # what is set wins
    assert measured.times == 1
    plan_for(DETECTOR, EMBEDDER, config, photos=5000, measure=measured, cpu=processor())  # this one
    assert measured.times == 1
    plan_for(None, EMBEDDER, config, photos=5000, measure=measured)  # other models
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
