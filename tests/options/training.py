"""Rows of train, finetune, compare and export: trainings of a network of five convolutions on two
photos.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from conftest import TINY

from fashionrec.models.bundle import Bundle
from options.table import World, row

MODEL = Path(__file__).parents[1] / "data" / "yolov8-tiny.yaml"
ULTRALYTICS = ("torch", "ultralytics", "onnx")
CLIP = ("torch", "transformers")
QUICK = ("workers=0", "plots=false", "mosaic=0.0", "val=false")


def sets(section: str, *words: str) -> list[str]:
    return [part for word in words for part in ("--set", f"{section}.{word}")]


def record(run: str) -> dict[str, Any]:
    """The settings that a run was made by, as its folder has them."""
    found: dict[str, Any] = json.loads((Path(run) / "run.json").read_text())["config"]
    return found


def told(run: str) -> dict[str, Any]:
    """Return what ultralytics was told, as it writes that down itself."""
    found: dict[str, Any] = yaml.safe_load((Path(run) / "args.yaml").read_text())
    return found


def prepare(world: World) -> None:
    """A data set, and files where a model that nobody named would be fetched from the network."""
    world.take("halves")
    for name in ("yolov8l.pt", "yolo11l.pt"):
        Path(name).write_bytes(b"not a checkpoint")


@row(
    "train",
    *("SETTINGS", "--data", "--model", "--name", "--epochs", "--imgsz", "--batch", "--device", "--json"),
    needs=ULTRALYTICS,
)
def a_detector(world: World) -> None:
    prepare(world)
    options = ("--name", "mine", "--epochs", 3, "--imgsz", 64, "--batch", 2, "--device", "cpu")
    done = world.json(
        "train", "--data", "halves/data.yaml", "--model", MODEL, *options, *sets("train", *QUICK), "patience=7"
    )
    assert (done["path"], done["dataset"]["path"]) == ("runs/train/mine", "halves/data.yaml")
    for made in (told("runs/train/mine"), record("runs/train/mine")["train"]):
        assert {key: made[key] for key in ("epochs", "imgsz", "batch", "device", "patience")} == {
            "epochs": 3,
            "imgsz": 64,
            "batch": 2,
            "device": "cpu",
            "patience": 7,
        }
        assert Path(made["model"]).name == MODEL.name


@row("train", "--resume", "--trust-pickle", needs=ULTRALYTICS)
@row("finetune", "--trust-pickle", needs=ULTRALYTICS)
@row("export", "--trust-pickle", needs=ULTRALYTICS)
def what_goes_on_and_what_is_trusted(world: World) -> None:
    assert "no unfinished run in" in world.run("train", "--resume", code=2).err
    Path("theirs.pt").write_bytes(b"not a checkpoint")
    for words in (
        ("train", "--model", "theirs.pt", "--data", "none"),
        ("finetune", "--weights", "theirs.pt", "--data", "none"),
        ("export", "theirs.pt", "--out", "bundle"),
    ):
        assert ", because of --trust-pickle" not in world.run(*words, code=2).err
        assert (
            "executing code in theirs.pt, because of --trust-pickle" in world.run(*words, "--trust-pickle", code=2).err
        )


@row("train", "--data", "--name", "--epochs", "--batch", "--device", needs=CLIP)
@row("finetune", "SETTINGS", "--weights", "--data", "--name", "--epochs", needs=CLIP)
def an_encoder(world: World) -> None:
    small = {"image_size": 16, "width": 16, "layers": 1, "heads": 2, "text_width": 16, "text_layers": 1, "dim": 8}
    quick = sets("train_embedder", *(f"{key}={value}" for key, value in small.items()))
    quick += ["--set", "build.detect=false"]
    table = world.made.tops.parent / "tops-photos" / "products.csv"
    train = ("train", "--data", table, "--name", "small", *quick)
    assert "model does not apply" in world.run(*train, "--model", "clip", code=2).err
    made = world.json(*train, "--epochs", 2, "--batch", 5, "--device", "cpu", "seed=9")
    assert (made["path"], made["kind"]) == ("runs/train/small", "embedder")
    kept = record("runs/train/small")["train_embedder"]
    assert [kept[key] for key in ("epochs", "batch", "device", "seed")] == [2, 5, "cpu", 9]
    words = ("--weights", "runs/train/small", "--data", table, "--name", "tuned", "--epochs", 3, "batch=7")
    again = world.json("finetune", *words, *quick, code=None)
    assert again["path"] == "runs/finetune/tuned"
    kept = record("runs/finetune/tuned")
    assert [kept["train_embedder"][key] for key in ("epochs", "batch")] == [3, 7]
    assert kept["init"].startswith("runs/train/small")


@row("finetune", "SETTINGS", "--weights", "--data", "--replay", "--name", "--epochs", "--json", needs=ULTRALYTICS)
def a_finetuned_detector(world: World) -> None:
    prepare(world)
    world.take("halves", "old")
    world.take("trained", "runs/train/base")
    quick = sets("finetune", *QUICK, "imgsz=64", "batch=2", "device=cpu", "distill=0", "interpolate=[1.0]")
    where = ("--weights", "runs/train/base", "--data", "halves/data.yaml", "--replay", "old/data.yaml")
    done = world.json("finetune", *where, "--name", "tuned", "--epochs", 2, *quick, "resamples=100", code=None)
    assert (done["path"], done["notes"]["replayed"]) == ("runs/finetune/tuned", 2)
    kept = record("runs/finetune/tuned")["finetune"]
    assert [kept[key] for key in ("data", "replay", "epochs", "resamples")] == [
        "halves/data.yaml",
        "old/data.yaml",
        2,
        100,
    ]
    assert kept["weights"].startswith("runs/train/base")
    assert (told("runs/finetune/tuned")["epochs"], told("runs/finetune/tuned")["batch"]) == (2, 2)


@row(
    "compare",
    *(
        "WORDS",
        "--models",
        "--data",
        "--split",
        "--epochs",
        "--imgsz",
        "--batch",
        "--device",
        "--name",
        "--out",
        "--json",
    ),
    needs=ULTRALYTICS,
)
def several_detectors(world: World) -> None:
    prepare(world)
    quick = [*sets("compare", "workers=0", "seconds=0.01"), *sets("train", "plots=false", "val=false"), "batches=[1]"]
    options = ("--split", "valid", "--epochs", 2, "--imgsz", 64, "--batch", 3, "--device", "cpu", "--name", "mine")
    found = world.json("compare", TINY / "detector", "--models", MODEL, "--data", "halves", *options, *quick)
    assert json.loads(Path("runs/compare/mine/comparison.json").read_text()) == found
    assert (found["data"], found["split"], found["photos"]) == ("halves/data.yaml", "valid", 2)
    assert [one["model"] for one in found["models"]] == [str(MODEL), str(TINY / "detector")]
    assert found["models"][1]["per_class"]["dress"]["boxes"] == 2  # as the valid split is labelled
    assert found["settings"]["batches"] == [1]
    for made in (told("runs/train/compare-yolov8-tiny"), record("runs/train/compare-yolov8-tiny")["train"]):
        assert [made[key] for key in ("epochs", "imgsz", "batch", "device")] == [2, 64, 3, "cpu"]
    world.run("compare", TINY / "detector", "--data", "halves", *quick, "--out", "elsewhere")
    assert Path("elsewhere/comparison.html").is_file()


@row("export", "SOURCE", "--out", "SETTINGS", "--images", "--data", "--json", needs=ULTRALYTICS)
def a_bundle(world: World) -> None:
    prepare(world)
    world.take("trained", "base")
    bare = world.json("export", "base", "--out", "bare")
    assert (bare["path"], bare["kind"], Bundle.open(Path("bare")).spec["imgsz"]) == ("bare", "detector", 64)
    made = world.json("export", "base", "--out", "made", "--images", world.made.photos, "imgsz=96")
    assert (made["agreement"]["photos"], Bundle.open(Path("made")).spec["imgsz"]) == (6, 96)
    lenient = ("--set", "export.tolerance.fp32=100")  # it has learnt nothing: chance decides
    judged = world.json("export", "base", "--out", "judged", "--data", "halves/data.yaml", *lenient)
    assert set(judged["agreement"]) > set(bare["agreement"])


@row("export", "--precision", "--format", needs=("onnx",))
def what_an_export_is(world: World) -> None:
    source = ("export", TINY / "embedder", "--out", "b")
    assert "project.device=tensorrt" in world.run(*source, "--format", "engine", code=2).err
    assert "fp16 must be tested on your photos" in world.run(*source, "--precision", "fp16", code=2).err
