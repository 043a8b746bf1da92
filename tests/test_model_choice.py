"""Test which model is meant, line by line: what is said, opened, exported once and used again, or
refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

from fashionrec.common.files import sha256_file
from fashionrec.config import load_config
from fashionrec.errors import ConfigError, DataError, ModelError, Refused
from fashionrec.models.bundle import Bundle, check_replaceable, write_bundle
from fashionrec.models.choice import ModelChoice
from fashionrec.models.providers import check_started, providers_for
from fashionrec.models.runs import Run, demote, find_run, list_runs, promote, read_run, remove_leftovers, start_run


class Chosen:
    """A choice, with what it said, warned of, and had exported."""

    def __init__(self, *sets: str) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        self.exported: list[tuple[str, str]] = []
        self.choice = ModelChoice(
            load_config(sets=sets, env={}), self.detector, self.embedder, self.said.append, self.warned.append
        )

    def write(self, kind: str, target: Path, digest: str) -> Bundle:
        made = Bundle.open(TINY / kind)
        files = {name: made.path / name for name in made.files}
        about: dict[str, Any] = {"kind": kind, "graphs": made.graphs, "spec": made.spec, "files": files}
        return write_bundle(target, **about, name="made", source={"sha256": digest}, agreement={}, overwrite=True)

    def detector(self, path: Path, target: Path) -> Bundle:
        self.exported.append((str(path), str(target)))
        return self.write("detector", target, sha256_file(path))

    def embedder(self, source: str, target: Path) -> Bundle:
        self.exported.append((source, str(target)))
        weights = Path(source) / "model.safetensors"
        return self.write("embedder", target, sha256_file(weights) if weights.is_file() else "")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finished(kind: str, verb: str, name: str, *weights: str, **changes: Any) -> Run:
    run = start_run(Path("runs") / verb, name, kind=kind, verb=verb)
    for one in weights:
        (run.path / "weights" / f"{one}.pt").write_text(one)
    run.weights = {one: f"weights/{one}.pt" for one in weights}
    run.status, run.promoted = "done", True
    for key, value in changes.items():
        setattr(run, key, value)
    run.save()
    return run


def refused(act: Callable[[], object], kind: type[Exception] = ModelError) -> tuple[str, str]:
    with pytest.raises(kind) as caught:
        act()
    error: Any = caught.value
    return str(error), error.hint


def test_the_detector_that_is_named_or_set_or_of_the_catalogue_or_of_the_newest_run() -> None:
    one = Chosen()
    assert one.choice.detector("none") is None
    assert one.said == ["detector: none, every photo is one whole garment"]
    none = Chosen("detector.source=none")
    assert none.choice.detector(None) is None
    found = one.choice.detector(str(TINY / "detector"))
    assert found is not None
    assert (found.path, one.said[1:]) == (TINY / "detector", [f"detector: {TINY / 'detector'}"])
    setting = Chosen(f"detector.source={TINY / 'detector'}")
    assert setting.choice.detector(None, catalogue=Path("c")) is not None
    assert setting.said == [f"detector: {TINY / 'detector'} (detector.source)"]
    built = Chosen()
    assert built.choice.detector(None, catalogue=TINY / "detector") is not None
    assert built.said == ["detector: detector (as the catalogue was built)"]
    assert refused(lambda: Chosen().choice.detector(None)) == (
        "no detector given, and no promoted run in runs",
        "train one with `fashionrec train`, give one with --detector (after `make demo`: --config demo), or use --detector none",
    )
    finished("detector", "train", "a", "best")
    (Path("runs") / "train" / "broken").mkdir()
    (Path("runs") / "train" / "broken" / "run.json").write_text("{")
    newest = Chosen()
    made = newest.choice.detector(None)
    assert made is not None
    assert made.path == Path("runs/train/a/weights/best.bundle")
    assert newest.said == [
        "detector: runs/train/a/weights/best.pt (the last promoted run, runs/train/a)",
        "exporting runs/train/a/weights/best.pt to runs/train/a/weights/best.bundle",
    ]
    assert newest.exported == [("runs/train/a/weights/best.pt", "runs/train/a/weights/best.bundle")]
    assert [warning.partition(" is damaged")[0] for warning in newest.warned] == ["runs/train/broken/run.json"]


def test_a_checkpoint_is_exported_beside_itself_once() -> None:
    Path("model.pt").write_text("one")
    one = Chosen()
    for _ in range(2):
        assert one.choice.detector_of(Path("model.pt")).path == Path("model.bundle")
    assert one.exported == [("model.pt", "model.bundle")]
    Path("model.pt").write_text("two")  # trained again
    one.choice.detector_of(Path("model.pt"))
    assert len(one.exported) == 2
    (Path("model.bundle") / "labels").write_text("")
    for graph in Bundle.open("model.bundle").graphs.values():
        data = bytearray((Path("model.bundle") / graph).read_bytes())
        data[-1] ^= 1
        (Path("model.bundle") / graph).write_bytes(data)
    assert refused(lambda: one.choice.detector_of(Path("model.pt")))[0].endswith("has changed")
    assert refused(lambda: one.choice.detector_of(Path("model.bundle")))[0].endswith("has changed")
    hint = "give a bundle, a run folder, or a checkpoint such as best.pt"
    assert refused(lambda: one.choice.detector_of(Path("gone.pt"))) == ("no such detector: gone.pt", hint)
    Path("folder").mkdir()
    assert (
        refused(lambda: one.choice.detector_of(Path("folder")))[0] == "folder is not a bundle: bundle.json is missing"
    )
    assert refused(lambda: one.choice.detector_of(TINY / "embedder"))[0].endswith("holds an embedder, not a detector")
    assert refused(lambda: one.choice.embedder_of(str(TINY / "detector")))[0].endswith(
        "holds a detector, not an embedder"
    )


def test_the_weights_of_a_run() -> None:
    one = Chosen()
    run = finished("detector", "finetune", "ft", "best", "best_ft", "last")
    assert one.choice.detector_of(run.path).path.name == "best_ft.bundle"
    assert (run.best, run.weights_path("last")) == (run.path / "weights/best_ft.pt", run.path / "weights/last.pt")
    assert one.choice.detector_of(finished("detector", "train", "t", "best").path).path.name == "best.bundle"
    last = finished("detector", "train", "l", "last", status="failed")
    told = ("run runs/train/l has no finished weights", "its status is failed")
    assert refused(lambda: one.choice.detector_of(last.path)) == told
    assert refused(lambda: last.best, DataError)[0] == "run runs/train/l has no best weights, only last"
    assert (
        refused(lambda: finished("detector", "train", "n").best, DataError)[0]
        == "run runs/train/n has no best weights, only none"
    )


def test_the_encoder_that_is_named_or_set_or_of_the_catalogue() -> None:
    one = Chosen()
    assert one.choice.embedder(None, catalogue=TINY / "embedder").path == TINY / "embedder"
    assert one.said == ["embedder: embedder (as the catalogue was built)"]
    source = f"embedder.source={TINY / 'embedder'}"
    setting = Chosen(source)
    assert setting.choice.embedder(None, catalogue=Path("c")).path == TINY / "embedder"
    assert setting.said == [f"embedder: {TINY / 'embedder'} (embedder.source)"]
    named = Chosen()
    assert named.choice.embedder(str(TINY / "embedder"), catalogue=Path("c")).path == TINY / "embedder"
    assert named.said == [f"embedder: {TINY / 'embedder'}"]
    shipped = one.choice.resolved.config.embedder.source
    hub = Chosen("project.data=d")
    for _ in range(2):
        assert hub.choice.embedder(None).path == Path("d/bundles") / shipped.replace("/", "--")
    assert hub.exported == [(shipped, f"d/bundles/{shipped.replace('/', '--')}")]
    Path(shipped).mkdir(parents=True)
    assert refused(lambda: hub.choice.embedder(None)) == (
        f"{shipped} is both the default encoder on the hub and a folder here",
        f"for the folder: --set embedder.source=./{shipped}; for the hub, rename the folder",
    )
    by_name = Chosen(f"embedder.source=./{shipped}")
    by_name.choice.embedder(None)
    assert by_name.exported == [(shipped, f"{shipped}.bundle")]


@pytest.mark.parametrize(
    "source",
    [
        "clip",
        "./clip",
        "../clip",
        "/clip",
        "a/b/clip",
        "a\\clip",
        "~/clip",
        "runs/clip",
        "data/clip",
        "a/clip/",
        "a b/c",
    ],
)
def test_a_path_that_is_missing_is_not_looked_for_on_the_hub(source: str) -> None:
    one = Chosen()
    assert refused(lambda: one.choice.embedder(source)) == (
        f"no such encoder: {source}",
        "give a bundle, a run folder, a folder written by save_pretrained, or a Hugging Face id (owner/name)",
    )
    assert one.exported == []


def test_an_encoder_in_a_folder_is_exported_beside_it_once() -> None:
    Path("clip").mkdir()
    one = Chosen()
    for _ in range(2):  # no weights to tell it by
        one.choice.embedder_of("clip")
    assert one.exported == [("clip", "clip.bundle")] * 2
    (Path("clip") / "model.safetensors").write_text("one")
    for _ in range(3):
        assert one.choice.embedder_of("clip").path == Path("clip.bundle")
    assert len(one.exported) == 3
    (Path("clip") / "model.safetensors").write_text("two")
    one.choice.embedder_of("clip")
    assert len(one.exported) == 4
    run = finished("embedder", "train", "e")
    (run.path / "weights" / "best").mkdir()
    run.weights = {"best": "weights/best"}
    run.save()
    assert one.choice.embedder_of(str(run.path)).path == run.path / "weights" / "best.bundle"


def test_what_may_be_replaced_by_a_bundle() -> None:
    there = "choose another --out, or delete it"
    check_replaceable(Path("new"), overwrite=False)
    Path("file").write_text("")
    for overwrite in (False, True):
        assert refused(lambda: check_replaceable(Path("file"), overwrite=overwrite)) == ("file exists", there)  # noqa: B023
    shutil.copytree(TINY / "detector", "b")
    check_replaceable(Path("b"), overwrite=True)
    assert refused(lambda: check_replaceable(Path("b"), overwrite=False)) == ("b exists", there)
    (Path("b") / ".tensorrt").mkdir()
    check_replaceable(Path("b"), overwrite=True)
    (Path("b") / "notes.txt").write_text("mine")
    away = "choose another --out, or move it"
    told = ("b contains a file that is not part of a bundle: notes.txt", away)
    assert refused(lambda: check_replaceable(Path("b"), overwrite=True)) == told
    (Path("b") / "notes.txt").unlink()
    (Path("b") / "mine").mkdir()
    assert refused(lambda: check_replaceable(Path("b"), overwrite=True))[0].endswith("mine")


def test_names_of_new_runs() -> None:
    parent = Path("runs/train")
    assert [start_run(parent, None, kind="detector", verb="train").name for _ in range(3)] == [
        "train",
        "train2",
        "train3",
    ]
    hint = "give a name, not a path; the parent folder is project.runs"
    for name in ("", ".", "..", "a/b"):
        told = (f"invalid run name {name!r}", hint)
        assert refused(lambda: start_run(parent, name, kind="detector", verb="train"), ConfigError) == told  # noqa: B023
    told = ("run runs/train/train already exists", "choose another name=, or set exist_ok=true or resume=true")
    assert refused(lambda: start_run(parent, "train", kind="detector", verb="train"), ConfigError) == told
    again = start_run(parent, "train", kind="embedder", verb="train", exist_ok=True)
    read = read_run(again.path)
    assert read == again
    assert (read.kind, read.verb, read.status, read.promoted, read.epochs, read.seed) == (
        *("embedder", "train", "running", False, 0, 0),
    )
    assert {"python", "fashionrec", "numpy", "Pillow", "onnxruntime"} <= read.versions.keys()
    assert read.created.endswith("+00:00")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "has an incompatible format"),
        ({"format_version": 2}, "has an incompatible format"),
        ({"epochs": 1.5}, "is damaged: epochs is float"),
        ({"promoted": 1}, "is damaged: promoted is int"),
        ({"seconds": "1"}, "is damaged: seconds is str"),
        ({"weights": []}, "is damaged: weights is list"),
        ({"promotions": {}}, "is damaged: promotions is dict"),
        ({"kind": None}, "is damaged: kind is NoneType"),
        ({"weights": {"best": 5}}, "is damaged: it does not say what was trained"),
    ],
)
def test_a_record_of_others(change: dict[str, Any], message: str) -> None:
    from fashionrec.common.documents import read_json
    from fashionrec.common.files import dump_json

    run = finished("detector", "train", "a", "best", seconds=3)
    assert read_run(run.path).seconds == 3
    record = run.path / "run.json"
    document = read_json(record)
    record.write_text(dump_json({**document, **change}))
    assert refused(lambda: read_run(run.path), DataError)[0] == f"{record} {message}"
    for key in ("kind", "verb"):
        record.write_text(dump_json({name: value for name, value in document.items() if name != key}))
        told = f"{record} is damaged: it does not say what was trained"
        assert refused(lambda: read_run(run.path), DataError)[0] == told
    record.write_text("[]")
    assert refused(lambda: read_run(run.path), DataError)[0] == f"{record} has an incompatible format"
    record.unlink()
    assert refused(lambda: read_run(run.path), DataError)[0] == "no run at runs/train/a: run.json is missing"


def test_runs_are_listed_newest_first_and_found_by_what_names_them() -> None:
    for name, created in (("a", "2026-01-01"), ("c", "2026-01-02"), ("b", "2026-01-02")):
        finished("detector", "train", name, created=created)
    assert [run.name for run in list_runs(Path("runs"))] == ["c", "b", "a"]
    assert list_runs(Path("gone")) == []
    assert find_run(Path("runs"), "train/a").name == find_run(Path("runs"), "runs/train/a").name == "a"
    told = ("no run zzz in runs", "`fashionrec runs list` lists them")
    assert refused(lambda: find_run(Path("runs"), "zzz"), DataError) == told
    left = [".best.pt.tmp", ".best.pt.copy.tmp", ".last.pt.0af3.tmp", ".model.safetensors.tmp"]
    kept = [".best.txt.tmp", "best.pt.tmp", ".best.pt.xyz.tmp", "best.pt"]
    run = find_run(Path("runs"), "a")
    for name in (*left, *kept):
        (run.path / "weights" / name).write_text("")
    (run.path / "weights" / ".folder.pt.tmp").mkdir()
    remove_leftovers(run)
    assert sorted(path.name for path in (run.path / "weights").iterdir()) == sorted([*kept, ".folder.pt.tmp"])


def test_what_is_promoted_and_why_not() -> None:
    run = finished("detector", "train", "a", "best", status="failed", promoted=False)
    told = ("run runs/train/a is not finished (failed)", "only finished runs can be used")
    assert refused(lambda: promote(run), ConfigError) == told
    run.status = "done"
    assert refused(lambda: demote(run), ConfigError)[0] == "run runs/train/a is not promoted"
    overrule = "override with --force --why TEXT"
    for decision, reasons in (
        ({"promoted": False}, "it did not improve"),
        ({"promoted": False, "reasons": ["a", "b"]}, "a; b"),
    ):
        run.notes = {"decision": decision}
        assert refused(lambda: promote(run), Refused) == (f"run runs/train/a was rejected: {reasons}", overrule)
    promote(run, why="so", force=True)
    run.notes = {"decision": {"promoted": True}}
    promote(run)
    demote(run, why="no")
    read = read_run(run.path)
    assert read.promoted is False
    assert [(entry["promoted"], entry["why"], entry["forced"]) for entry in read.promotions] == [
        (True, "so", True),
        (True, "", False),
        (False, "no", False),
    ]


CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))


def test_the_options_of_tensorrt() -> None:
    there = [CPU, TENSORRT]
    for precision, fp16, int8 in (("fp32", "0", "0"), ("fp16", "1", "0"), ("int8", "0", "1")):
        options = {"trt_fp16_enable": fp16, "trt_int8_enable": int8}
        assert providers_for("tensorrt", there, precision, lambda: None) == [(TENSORRT, options), CPU]
        kept = {**options, "trt_engine_cache_enable": "1", "trt_engine_cache_path": "e"}
        assert providers_for("tensorrt", there, precision, lambda: Path("e")) == [(TENSORRT, kept), CPU]
    assert providers_for("other", [CPU, CUDA, TENSORRT], "fp32", lambda: None) == [CUDA, CPU]
    assert refused(lambda: providers_for("cuda", [CPU], "fp32", lambda: None)) == (
        "project.device is cuda, but this ONNX Runtime has no CUDA provider",
        "pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu; or set project.device=auto",
    )
    assert refused(lambda: providers_for("tensorrt", [CPU], "fp32", lambda: None))[0].endswith("no Tensorrt provider")
    assert refused(lambda: check_started("cuda", [TENSORRT, CPU])) == (
        f"project.device is cuda, but it cannot start here: ONNX Runtime runs on {TENSORRT}, {CPU}",
        "install the libraries of CUDA, cuDNN and TensorRT that this release needs, or set project.device=auto",
    )
    check_started("cuda", [CUDA, CPU])
    check_started("cpu", [CPU])
