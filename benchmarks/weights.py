"""Models of real size for measuring speed, made here: nothing is downloaded, and their speed does
not hang on what they mean.

A CLIP of FashionCLIP's exact shape (ViT-B/32) with random weights; YOLOv8n trained for a few epochs
on what is there, larger ones widened from it, and the confidence at which they find about as many
garments in a photo as a trained one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def fashionrec(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "fashionrec", *map(str, arguments), "--json"]
    print("+ fashionrec", *arguments, file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def photos(count: int, out: Path) -> list[Path]:
    """``count`` photos: real ones of FASHIONREC_REALDATA, two phone photos to each shop photo; else
    drawn ones.
    """
    folder = os.environ.get("FASHIONREC_REALDATA")
    if folder and (Path(folder) / "luma").is_dir():
        phone = sorted((Path(folder) / "clothes-cc0" / "images").rglob("*.jpg"))
        shop = sorted((Path(folder) / "luma" / "images").rglob("*.jpg"))
        third = min(len(shop), count // 3)
        return _spread(shop, third) + _spread(phone, count - third)
    world = out / "world"
    if not (world / "data.yaml").exists():
        sets = ("--set", f"synthetic.images={count}", "--set", "synthetic.products=2", "--set", "synthetic.size=640")
        fashionrec("fetch-dataset", "synthetic", "--out", world, *sets)
    return _spread(sorted(world.rglob("images/*.jpg")), count)


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    return [paths[n * len(paths) // count] for n in range(min(count, len(paths)))]


def clip(out: Path) -> Path:
    """A folder in the transformers format: 151 million parameters."""
    target = out / "clip"
    if (target / "model.safetensors").exists():
        return target
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    torch.manual_seed(0)
    CLIPModel(CLIPConfig()).save_pretrained(target)
    CLIPImageProcessorPil().save_pretrained(target)
    folder = os.environ.get("FASHIONREC_REALDATA")
    vocabulary = Path(folder or "") / "clip-tokenizer"
    if folder and vocabulary.is_dir():
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(vocabulary / name, target)
    else:  # bytes and no merges: texts become longer, which does not matter here
        from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

        letters = list(bytes_to_unicode().values())
        words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
        (target / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
        (target / "merges.txt").write_text("#version: 0.2\n")
    (target / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}')
    return target


def yolo(model: str, out: Path, epochs: int) -> Path:
    """``best.pt`` of a YOLOv8: the small one is trained for a few epochs on 264 photos, a larger
    one sees what that sees.
    """
    target = out / f"{model}.pt"
    if target.exists():
        return target
    if model != "yolov8n":
        _widened(yolo("yolov8n", out, epochs), model, target)
        return target
    folder = os.environ.get("FASHIONREC_REALDATA")
    data = out / "street" / "data.yaml"
    if not data.exists():
        if folder and (Path(folder) / "ccp-yolo").is_dir():
            fashionrec("fetch-dataset", f"yolo:{Path(folder) / 'ccp-yolo'}", "--out", data.parent)
        else:
            fashionrec("fetch-dataset", "synthetic", "--out", data.parent, "--set", "synthetic.products=2")
    run = fashionrec(
        *(
            "train",
            f"data={data}",
            "model=yolov8n.yaml",
            "name=speed",
            "exist_ok=true",
            "device=cpu",
            f"epochs={epochs}",
        ),
        *("imgsz=192", "batch=16", "fraction=0.4", "mosaic=0.0", "optimizer=AdamW", "lr0=0.002"),
        *("--set", f"project.runs={out}"),
    )
    shutil.copy(run["weights"]["best"], target)
    return target


def _widened(small: Path, model: str, target: Path) -> None:
    from benchmarks.widen import widen
    from fashionrec.detector.training.ultra import load_yolo, quiet
    from fashionrec.types import CLASS_NAMES

    with quiet(None):
        from ultralytics.nn.tasks import DetectionModel

        network = load_yolo(f"{model}.yaml")
        network.model = DetectionModel(f"{model}.yaml", nc=len(CLASS_NAMES), verbose=False)
        network.model.names = dict(enumerate(CLASS_NAMES))
        widen(load_yolo(str(small)).model.float(), network.model)
        network.save(str(target))


def bundles(model: str, out: Path, epochs: int) -> dict[str, Path]:
    """The detector and the encoder as bundles in fp32, and their sources."""
    weights, towers = yolo(model, out, epochs), clip(out)
    found = {"weights": weights, "clip": towers, "detector": out / f"{model}.bundle", "embedder": out / "clip.bundle"}
    if not found["detector"].exists():
        fashionrec("export", weights, "--out", found["detector"], "imgsz=640")
    if not found["embedder"].exists():
        fashionrec("export", towers, "--out", found["embedder"])
    return found


def confidence(bundle: Path, paths: Sequence[Path], garments: float) -> float:
    """The confidence from which on a detector finds about ``garments`` in a photo."""
    from fashionrec.config import load_config
    from fashionrec.detector.detect import Detector
    from fashionrec.models.bundle import Bundle
    from fashionrec.photos.images import read_photo

    config = load_config(env={}).config
    detector = Detector(
        Bundle.open(bundle), conf=0.0, iou=config.detector.iou, max_garments=12, device="cpu", rectangular=True
    )
    scores: list[float] = []  # NMS is greedy: what it keeps above a confidence does not hang on what lies below
    for path in paths:
        (seen,) = detector.detect([read_photo(path, config.images).pixels])
        scores += [one.confidence or 0.0 for one in seen]
    scores.sort(reverse=True)
    return scores[min(len(scores) - 1, round(garments * len(paths)))]


def in_precision(made: dict[str, Path], precision: str, paths: Sequence[Path], out: Path) -> tuple[Path, Path]:
    """Detector and encoder in a precision, the encoder judged on the photos. A detector that has
    learnt next to nothing has nothing that a gate could hold on to: it is converted without
    (`python -m benchmarks int8` is about what it loses).
    """
    if precision == "fp32":
        return made["detector"], made["embedder"]
    target = made["detector"].with_name(f"{made['detector'].stem}.{precision}.bundle")
    if not target.exists():
        _converted(made["detector"], target, precision, paths)
    return target, encoder_in(made["embedder"], precision, out, paths)


def encoder_in(source: Path, precision: str, out: Path, paths: Sequence[Path] = ()) -> Path:
    """A float32 encoder's bundle in a precision, kept in ``out``."""
    target = out / f"{source.stem}.{precision}.bundle"
    if precision == "fp32":
        return source
    if not target.exists():
        folder = out / "photos"
        folder.mkdir(exist_ok=True)
        for path in paths or photos(128, out):
            link = folder / path.name
            if not link.exists():
                link.symlink_to(path.resolve())
        fashionrec("export", source, "--out", target, "--precision", precision, "--images", folder)
    return target


def _converted(source: Path, target: Path, precision: str, paths: Sequence[Path]) -> None:
    import tempfile

    from fashionrec.config import load_config
    from fashionrec.detector.detect import Detector
    from fashionrec.detector.training.precision import to_fp16, to_int8
    from fashionrec.models.bundle import Bundle, write_bundle
    from fashionrec.models.graphs import graph_files, with_optimized
    from fashionrec.photos.images import read_photo

    bundle, limits = Bundle.open(source), load_config(env={}).config.images
    detector = Detector(bundle, conf=0.3, iou=0.6, max_garments=12, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "detect.onnx"
        graph = bundle.path / bundle.graphs["detect"]
        if precision == "int8":
            few = paths[:: max(1, len(paths) // 16)]
            to_int8(graph, file, lambda: [detector.inputs([read_photo(path, limits).pixels]) for path in few])
        else:
            to_fp16(graph, file)
        write_bundle(
            target,
            kind="detector",
            name=f"{bundle.name}-{precision}",
            graphs=with_optimized({"detect": file.name}, file.parent),
            spec={**bundle.spec, "precision": precision},
            source={"name": bundle.name},
            agreement={},
            files=graph_files(file),
        )
