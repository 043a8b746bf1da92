"""The pytest plugin of `tests/mutate.py`: notes which lines each test runs, or runs chosen tests in
a given order.

It is copied to a folder of its own and loaded with ``-p mutate_plugin``. The environment says what
it does:

``MUTATE_MAP`` A folder. Coverage runs with one context per test and one per fixture that several
    tests share; child processes (which load this file as `sitecustomize`) add theirs to the context
    of the test that started them.
``MUTATE_RUN`` A JSON file: the tests (or whole files of tests) to run, in order, each with the
    seconds that a test may take.
``MUTATE_OUT``
    The JSON file that receives the outcome.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONTEXT = "MUTATE_CONTEXT"


def start_coverage(context: str | None = None) -> Any:
    import coverage

    recorder = coverage.Coverage(
        data_file=str(Path(os.environ["MUTATE_MAP"], "lines")),
        data_suffix=True,
        config_file=False,
        source=os.environ["MUTATE_SOURCE"].split(os.pathsep),
        context=context,
        messages=False,
    )
    recorder.start()
    return recorder


def record_child() -> None:
    """Record a child process until it ends, also through `os._exit` (as children of
    `multiprocessing` do).
    """
    recorder = start_coverage(os.environ[CONTEXT])
    exit_now = os._exit

    def save() -> None:
        recorder.stop()
        recorder.save()

    def save_and_exit(code: int) -> None:
        try:
            save()
        finally:
            exit_now(code)

    atexit.register(save)
    os._exit = save_and_exit  # type: ignore[assignment]


if __name__ == "sitecustomize":
    if os.environ.get(CONTEXT) and os.environ.get("MUTATE_MAP"):
        record_child()
else:
    import pytest

    class Mapper:
        """Switches coverage's context with each test and each shared fixture, and takes their
        times.
        """

        def __init__(self) -> None:
            self.recorder = start_coverage()
            self.contexts = [""]
            self.item: pytest.Item | None = None
            self.tests: dict[str, dict[str, Any]] = {}
            self.fixtures: dict[str, dict[str, float]] = {}

        def switch(self, context: str) -> None:
            self.recorder.switch_context(context)
            os.environ[CONTEXT] = context

        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
            clear_caches()
            self.item, self.contexts = item, [item.nodeid]
            self.tests[item.nodeid] = {"seconds": 0.0, "passes": True, "fixtures": []}
            self.switch(item.nodeid)
            shared = self.fixtures.setdefault(item.path.as_posix(), {})
            try:
                return (yield)
            finally:
                self.switch("")
                self.tests[item.nodeid]["fixtures"] = [n for n in getattr(item, "fixturenames", []) if n in shared]

        @pytest.hookimpl(wrapper=True)
        def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[Any]:
            if fixturedef.scope == "function" or self.item is None:
                return (yield)
            item = self.item
            self.contexts.append(f"{item.nodeid.partition('::')[0]}::fixture {fixturedef.argname}")
            self.switch(self.contexts[-1])
            begun = time.perf_counter()
            try:
                return (yield)
            finally:
                times = self.fixtures.setdefault(item.path.as_posix(), {})
                times[fixturedef.argname] = times.get(fixturedef.argname, 0.0) + time.perf_counter() - begun
                self.contexts.pop()
                self.switch(self.contexts[-1])

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            test = self.tests[report.nodeid]
            test["seconds"] += report.duration
            if report.failed:
                test["passes"] = False
            if report.skipped:
                test["skipped"] = True

        def pytest_unconfigure(self) -> None:
            self.recorder.stop()
            self.recorder.save()
            shared = {name: seconds for times in self.fixtures.values() for name, seconds in times.items()}
            write({"tests": self.tests, "fixtures": shared})

    class Runner:
        """Runs the listed tests in the listed order, each within its time."""

        def __init__(self, path: str) -> None:
            self.limits: dict[str, float] = json.loads(Path(path).read_text(encoding="utf-8"))
            self.failed: list[dict[str, Any]] = []
            self.ran: list[str] = []

        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
            order = {name: n for n, name in enumerate(self.limits)}
            named = {item: item.nodeid if item.nodeid in order else item.nodeid.partition("::")[0] for item in items}
            wanted = sorted((item for item in items if named[item] in order), key=lambda item: order[named[item]])
            config.hook.pytest_deselected(items=[item for item in items if named[item] not in order])
            for item in wanted:
                item.add_marker(pytest.mark.timeout(self.limits[named[item]]), append=False)
            items[:] = wanted

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.when == "teardown":
                self.ran.append(report.nodeid)
            if report.failed:
                self.failed.append({"test": report.nodeid, "timeout": "Timeout (>" in report.longreprtext})
                self.save()

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed:
                self.failed.append({"test": report.nodeid, "timeout": False, "collecting": True})

        def pytest_unconfigure(self) -> None:
            self.save()

        def save(self) -> None:
            write({"failed": self.failed, "ran": self.ran})

    def write(document: dict[str, Any]) -> None:
        Path(os.environ["MUTATE_OUT"]).write_text(json.dumps(document), encoding="utf-8")

    def clear_caches() -> None:
        """Empty the caches of the package's functions: what they keep would be noted for the first
        test alone.
        """
        folders = tuple(os.environ["MUTATE_SOURCE"].split(os.pathsep))
        for module in list(sys.modules.values()):
            if not (getattr(module, "__file__", None) or "").startswith(folders):
                continue
            for value in list(vars(module).values()):
                clear = getattr(value, "cache_clear", None)
                if callable(clear) and getattr(value, "__module__", "") == module.__name__:
                    clear()

    def pytest_configure(config: pytest.Config) -> None:
        if os.environ.get("MUTATE_RUN"):
            config.pluginmanager.register(Runner(os.environ["MUTATE_RUN"]), "mutate-run")
        elif mapper is not None:
            config.pluginmanager.register(mapper, "mutate-map")

    # Started here and not in a hook: the package is imported by conftest.py, before any hook of a
    # plugin could start it.
    mapper = Mapper() if os.environ.get("MUTATE_MAP") else None
