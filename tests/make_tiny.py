"""Makes ``tests/data/tiny``: a detector and an encoder small enough to read, as real bundles, and
six photos.

python tests/make_tiny.py        (needs onnx, of the extra "train"; the result is committed)

The detector sees a top where the left half of a photo is red, and pants where the right half is
blue: nothing else. The encoder's image vector is the photo at 4 x 4 pixels, centred; its text
vector is that of a plain picture in the colours named.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fashionrec.models.bundle import write_bundle
from fashionrec.models.graphs import graph_files, with_optimized
from fashionrec.types import CLASS_NAMES

TINY = Path(__file__).parent / "data" / "tiny"
SIDE = 64
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 255, 0), "white": (255, 255, 255), "black": (0, 0, 0)}


def constant(name: str, value: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)


def save(
    path: Path, nodes: list[onnx.NodeProto], inputs: list[object], outputs: list[object], values: list[object]
) -> None:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, values)  # type: ignore[arg-type]
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def detector_graph(path: Path) -> None:
    """images [b, 3, 64, 64] -> [b, 9, 2]: a box on each half; its score says how red, or how blue,
    the half is.
    """
    half = SIDE // 2
    boxes = np.array([[half / 2, SIDE / 2, half, SIDE], [half + half / 2, SIDE / 2, half, SIDE]], np.float32).T[None]
    # one channel minus the mean of the two others, averaged over its half: 1 for the pure colour, 0
    # for greys
    red, blue = np.zeros((2, 1, 3, SIDE, SIDE), np.float32)
    red[:, :, :, :half], blue[:, :, :, half:] = 1, 1
    red *= np.array([1, -0.5, -0.5], np.float32).reshape(1, 3, 1, 1) / (half * SIDE)
    blue *= np.array([-0.5, -0.5, 1], np.float32).reshape(1, 3, 1, 1) / (half * SIDE)
    classes = np.zeros((2, len(CLASS_NAMES), 2), np.float32)
    classes[0, CLASS_NAMES.index("top"), 0] = 1
    classes[1, CLASS_NAMES.index("pants"), 1] = 1
    nodes = [
        helper.make_node("Mul", ["images", "red"], ["reds"]),
        helper.make_node("ReduceSum", ["reds", "axes"], ["red_score"], keepdims=1),
        helper.make_node("Mul", ["images", "blue"], ["blues"]),
        helper.make_node("ReduceSum", ["blues", "axes"], ["blue_score"], keepdims=1),
        helper.make_node("Concat", ["red_score", "blue_score"], ["both"], axis=1),
        helper.make_node("Reshape", ["both", "shape"], ["pair"]),
        helper.make_node("MatMul", ["pair", "classes"], ["flat"]),
        helper.make_node("Reshape", ["flat", "grid"], ["raw"]),
        helper.make_node("Clip", ["raw", "zero", "one"], ["scores"]),
        helper.make_node("Mul", ["pair", "zero"], ["nothing"]),
        helper.make_node("Unsqueeze", ["nothing", "one_axis"], ["row"]),
        helper.make_node("Add", ["row", "boxes"], ["placed"]),
        helper.make_node("Concat", ["placed", "scores"], ["output0"], axis=1),
    ]
    values = [
        constant("red", red),
        constant("blue", blue),
        constant("axes", np.array([1, 2, 3])),
        constant("shape", np.array([-1, 2])),
        constant("classes", classes.reshape(2, -1)),
        constant("grid", np.array([-1, len(CLASS_NAMES), 2])),
        constant("zero", np.array(0, np.float32)),
        constant("one", np.array(1, np.float32)),
        constant("one_axis", np.array([1])),
        constant("boxes", boxes),
    ]
    save(
        path,
        nodes,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 4 + len(CLASS_NAMES), 2])],
        values,
    )


def image_graph(path: Path) -> None:
    nodes = [
        helper.make_node("AveragePool", ["pixel_values"], ["small"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["small"], ["image_embeds"]),
    ]
    save(
        path,
        nodes,
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", 48])],
        [],
    )


def text_graph(path: Path, vocabulary: dict[str, int]) -> None:
    table = np.zeros((len(vocabulary), 48), np.float32)
    for word, colour in COLOURS.items():
        table[vocabulary[word]] = np.repeat(np.array(colour, np.float32) / 127.5 - 1, 16)
    table[:, 0] += 1e-3  # no text is the zero vector
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["weights"]),
        helper.make_node("Mul", ["words", "weights"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis"], ["text_embeds"], keepdims=0),
    ]
    shape = ["batch", "sequence"]
    save(
        path,
        nodes,
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["batch", 48])],
        [constant("table", table), constant("last", np.array([2])), constant("axis", np.array([1]))],
    )


def photo(left: str, right: str, background: str = "white", width: int = 120, height: int = 90) -> Image.Image:
    image = Image.new("RGB", (width, height), background)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 2 - 1, height), fill=left)
    draw.rectangle((width // 2, 0, width, height), fill=right)
    return image


def main() -> None:
    shutil.rmtree(TINY, ignore_errors=True)
    (TINY / "photos").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        detector_graph(work / "detect.onnx")
        write_bundle(
            TINY / "detector",
            kind="detector",
            name="tiny-detector",
            graphs=with_optimized({"detect": "detect.onnx"}, work),
            spec={
                "imgsz": SIDE,
                "resize": "letterbox",
                "pad": 114,
                "scale": 1 / 255,
                "channels": "RGB",
                "head": "yolo",
                "labels": {str(n): name for n, name in enumerate(CLASS_NAMES)},
                "input": "images",
            },
            source={"name": "tests/make_tiny.py"},
            agreement={},
            files=graph_files(work / "detect.onnx"),
        )
        words = ["<start>", "<end>", "<unk>", *COLOURS]
        vocabulary = {word: n for n, word in enumerate(words)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
        )
        tokenizer.save(str(work / "tokenizer.json"))
        image_graph(work / "image.onnx")
        text_graph(work / "text.onnx", vocabulary)
        write_bundle(
            TINY / "embedder",
            kind="embedder",
            name="tiny-embedder",
            graphs=with_optimized({"image": "image.onnx", "text": "text.onnx"}, work),
            spec={
                "dim": 48,
                "logit_scale": 20.0,
                "image": {
                    "input": "pixel_values",
                    "shortest_edge": 32,
                    "resample": "bicubic",
                    "crop": [32, 32],
                    "scale": 1 / 255,
                    "mean": [0.5, 0.5, 0.5],
                    "std": [0.5, 0.5, 0.5],
                },
                "text": {"tokenizer": "tokenizer.json", "max_length": 8, "pad_id": 1, "pad_token": "<end>"},
            },
            source={"name": "tests/make_tiny.py"},
            agreement={},
            files={file.name: file for file in work.iterdir() if not file.name.startswith("detect")},
        )
    for name, (left, right) in {
        "red-blue": ("red", "blue"),
        "red-white": ("red", "white"),
        "white-blue": ("white", "blue"),
        "green": ("green", "green"),
        "grey": ("gray", "dimgray"),
        "orange-navy": ("orangered", "mediumblue"),
    }.items():
        photo(left, right).save(TINY / "photos" / f"{name}.jpg", quality=95)


if __name__ == "__main__":
    main()
