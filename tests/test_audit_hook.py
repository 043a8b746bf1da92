"""Commands on folders of others under an audit hook: nothing of theirs is compiled, executed or
unpickled, no process is started and no connection made.

``COMMANDS`` is a table of commands and what they end with. To add one, add a row, and plant in
:func:`project` what it finds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import hostile
import pytest
from conftest import TINY
from test_detector_training import FAST, TINY_MODEL, dataset

from fashionrec.catalogue.build.build import build_catalogue
from fashionrec.config import load_config
from fashionrec.models.bundle import Bundle
from fashionrec.products.tables import read_products

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")
pytest.importorskip("ultralytics")

RUNNER = Path(__file__).parent / "audit_runner.py"
#: Modules that the commands import; files of these names lie in the working folder.
MODULES = (
    "numpy torch torchvision ultralytics onnx onnxruntime onnxslim faiss cv2 albumentations cloudpickle yaml pickle fashionrec"
    " multiprocessing sitecustomize usercustomize PIL typer encodings"
).split()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the commands need and trust: a finished run, one that was stopped after an epoch,
    and data.
    """
    from fashionrec.detector.training.train import train_detector

    folder = tmp_path_factory.mktemp("made")
    data = dataset(folder / "data", {"train": 8, "valid": 4, "test": 4})
    for name in ("done", "stopped"):
        words = (f"data={data}", f"model={TINY_MODEL}", "epochs=2", f"name={name}", "save_period=1", *FAST)
        train_detector(load_config(sets=[f"train.{word}" for word in words], env={}).config.train, folder / "runs")
    weights = folder / "runs" / "train" / "stopped" / "weights"
    shutil.copyfile(weights / "epoch0.pt", weights / "last.pt")
    (weights / "best.pt").unlink()
    record = weights.parent / "run.json"
    document = json.loads(record.read_text())
    record.write_text(json.dumps(document | {"status": "failed", "promoted": False}))
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A working folder of somebody else: each file in it that could run something would."""
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    data = folder / "data" / "data.yaml"
    for record in folder.glob("runs/train/*/run.json"):  # a stopped run goes on with the data that it began with
        record.write_text(record.read_text().replace(str(made), str(folder)))
    hostile.planted_dataset(data, folder)
    (data.with_name("elsewhere.yaml")).write_text(f"path: nowhere\n{data.read_text()}")
    code = hostile.python_code(folder)
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"{code}\n")
    for name in ("demo", "yolov8l", "demo.yaml", "yolov8n.yaml"):
        (folder / name).write_text(
            f"activation: {code}\nnc: 5\nbackbone: [[-1, 1, Conv, [8, 3, 2]]]\nhead: [[[0], 1, Detect, [nc]]]\n"
        )
    tiny = Path(TINY_MODEL).read_text()
    (folder / "evaluated.yaml").write_text(f"{tiny}activation: {code}\n")
    (folder / "weights").mkdir()
    for name in ("evil.pt", "yolo26n.pt", "weights/yolo26n.pt"):
        hostile.raw_pickle(folder / name, folder)
    evil = folder / "runs" / "train" / "evil"
    shutil.copytree(folder / "runs" / "train" / "done", evil)
    record = evil / "run.json"
    document = json.loads(record.read_text())
    record.write_text(json.dumps(document | {"created": "2099-01-01T00:00:00+00:00", "promoted": True, "name": "evil"}))
    for name in ("best.pt", "last.pt"):
        hostile.archive(evil / "weights" / name, hostile.raw_pickle(folder / "evil.pt", folder).read_bytes())
    shutil.copytree(evil, folder / "runs" / "train" / "halted")
    record = folder / "runs" / "train" / "halted" / "run.json"
    record.write_text(json.dumps(document | {"status": "failed", "name": "halted", "promoted": False}))
    shutil.copytree(TINY / "photos", folder / "photos")
    _planted_catalogue(folder)
    return folder


def _planted_catalogue(folder: Path) -> None:
    """A catalogue with code and pickles beside, and under the names of, what a build and a query
    open.
    """
    root = folder / "catalogue"
    build_catalogue(
        read_products(folder / "photos"),
        root,
        detector_bundle=Bundle.open(TINY / "detector"),
        embedder_bundle=Bundle.open(TINY / "embedder"),
        config=load_config(env={}).config,
        source=str(folder / "photos"),
    )
    (root / "work").mkdir(exist_ok=True)
    for inside in (root, *root.glob("bundles/*"), root / "work", root / "segments", root / "generations" / "000001"):
        for name in ("sitecustomize.py", "modeling_clip.py", "numpy.py", "faiss.py", "tokenization_clip.py"):
            (inside / name).write_text(f"{hostile.python_code(folder)}\n")
        for name in ("labels.cache", "pytorch_model.bin", "vectors.npy", "index.pkl"):
            hostile.raw_pickle(inside / name, folder)
    for name in ("journal.sqlite", "seen.sqlite"):
        hostile.raw_pickle(root / "work" / name, folder)


@dataclass(frozen=True)
class Command:
    """One row: the words, the exit codes that are right, and what the hook sees without one of our
    guards.
    """

    name: str
    words: tuple[str, ...]
    codes: tuple[int, ...] = (0,)
    without: dict[str, str] = field(default_factory=dict)
    slow: bool = False

    def __str__(self) -> str:
        return self.name


DATA = "data=data/data.yaml"
BUNDLES = ("--detector", str(TINY / "detector"), "--embedder", str(TINY / "embedder"))
COMMANDS = (
    Command(
        "train",
        ("train", DATA, f"model={TINY_MODEL}", "epochs=1", "name=new", *FAST),
        without={"guard": "pickle.find_class"},
    ),
    Command(
        "train where ultralytics would download",
        ("train", "data=data/elsewhere.yaml", f"model={TINY_MODEL}", "epochs=1", "name=new", *FAST),
        without={"data": "compile"},
        slow=True,
    ),
    Command("resume", ("train", "--resume", "name=stopped", *FAST), slow=True),
    Command(
        "finetune",
        ("finetune", "--weights", "runs/train/done", "--data", "data/data.yaml", "epochs=1", "resamples=100", *FAST),
        (0, 3),
        slow=True,
    ),
    Command(
        "evaluate", ("evaluate", "--weights", "runs/train/done/weights/best.pt", "--data", "data/data.yaml"), slow=True
    ),
    Command("export", ("export", "runs/train/done/weights/best.pt", "--out", "bundle"), slow=True),
    Command(
        "export a pickle",
        ("export", "evil.pt", "--out", "bundle"),
        (2,),
        {"guard": "pickle.find_class"},
    ),
    Command(
        "resume a pickle",
        ("train", "--resume", "name=halted", *FAST),
        (2,),
    ),
    Command("use a promoted pickle", ("build-index", "photos", "--embedder", str(TINY / "embedder")), (2,)),
    Command(
        "build",
        ("build-index", "photos", "--embedder", str(TINY / "embedder"), "--detector", str(TINY / "detector")),
        slow=True,
    ),
    Command(
        "evaluated activation",
        ("train", DATA, "model=evaluated.yaml", "epochs=1", "name=new", *FAST),
        (2,),
        {"architecture": "compile"},
    ),
    Command("build", ("build-index", "photos", "--index", "catalogue", *BUNDLES)),
    Command("query a photo", ("query", "photos/green.jpg", "--index", "catalogue", "--html", "page.html")),
    Command("query by text", ("query", "--text", "red top", "--index", "catalogue", "--json")),
    Command("caption", ("caption", "--index", "catalogue")),
    Command("verify", ("catalogue", "verify", "catalogue")),
    Command("a shipped name", ("config", "show", "--config", "demo")),
)


def audited(project: Path, command: tuple[str, ...], *without: str) -> tuple[int, list[list[str]], str]:
    """Run a command in the project; its exit code, what the hook reported, and what it printed."""
    report = project.parent / "report.jsonl"
    report.unlink(missing_ok=True)
    words = [sys.executable, str(RUNNER), str(report), hostile.CANARY, str(project)]
    for guard in without:
        words += ["--without", guard]
    package = str(Path(__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": package, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*words, "--", *command], cwd=project, env=env, capture_output=True, text=True, check=False)
    found = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    return done.returncode, found, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [pytest.param(command, marks=[pytest.mark.slow] if command.slow else [], id=command.name) for command in COMMANDS],
)
def test_nothing_of_others_runs(command: Command, project: Path) -> None:
    code, found, said = audited(project, command.words)
    assert found == []
    assert code in command.codes, said
    assert hostile.ran(project) == []


def test_a_process_that_measures_memory_imports_nothing_from_here(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fashionrec.evaluation.detection.speed import memory

    monkeypatch.chdir(project)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    photo = next((project / "photos").iterdir())
    config = load_config(env={}).config
    assert memory(TINY / "detector", photo, config.detector, config.images, threads=1, device="cpu")
    assert hostile.ran(project) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "guard"),
    [(command, guard) for command in COMMANDS for guard in command.without],
    ids=lambda value: str(value),
)
def test_without_a_guard_the_hook_reports_it(command: Command, guard: str, project: Path) -> None:
    _, found, said = audited(project, command.words, guard)
    assert command.without[guard] in {event for event, _ in found}, said


@pytest.mark.parametrize(
    ("fault", "event"),
    [
        ("exec", "compile"),
        ("eval", "compile"),
        ("pickle", "pickle.find_class"),
        ("system", "os.system"),
        ("process", "subprocess.Popen"),
        ("connect", "socket.connect"),
        ("resolve", "socket.getaddrinfo"),
        ("open", "open"),
        ("import", "exec"),
    ],
)
def test_the_hook_sees_each_kind_of_fault(fault: str, event: str, tmp_path: Path) -> None:
    (tmp_path / f"{hostile.CANARY}.txt").write_text("")
    (tmp_path / f"planted_{hostile.CANARY.lower()}.py").write_text("")
    _, found, said = audited(tmp_path, (f"plant:{fault}",))
    assert event in {event for event, _ in found}, said
