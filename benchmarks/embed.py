"""An encoder alone: pictures per second, as a fraction of what this chip does of the same matrix
products, in the same run.

python -m benchmarks embed [--embedder CLIP.bundle] [--precisions fp32 int8] [--batch 16] [--rounds 7] [--profile] [--out DIR]

A CLIP of FashionCLIP's shape is made where none is given. The chip's rate is that of ONNX Runtime's
own MatMul (fp32) and MatMulInteger (int8) on the tower's shapes and nothing else: all products with
weights of one pass, as many at a time as the encoder has workers (one a core, one thread each). The
encoder's own operations counted are its products: with weights, of the patches and of attention.
Both are asked in turn; figures are medians of the rounds. numpy's rate for large matrices stands
beside it. --profile tells where the rest goes, by kind of node.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import weights


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def products(graph: Path) -> tuple[list[tuple[int, int, int]], float]:
    """(rows a picture, inner, outer) of each product with weights of a float32 tower, and all
    operations of a picture.
    """
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(graph))
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }
    sizes = {value.name: list(value.dims) for value in model.graph.initializer}
    tokens = max((shape[1] for shape in shapes.values() if len(shape) == 3 and shape[1]), default=1)
    found, other = [], 0.0
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in sizes:
            shape = shapes.get(node.input[0], [])
            found.append((1 if len(shape) == 2 else tokens, *sizes[node.input[1]]))
        elif node.op_type == "MatMul":  # attention: scores, and values by them
            width = max(outer for _, _, outer in found[-3:]) if found else 0
            other += 2 * tokens * tokens * width
        elif node.op_type == "Conv":
            other += 2 * (tokens - 1) * float(np.prod(sizes[node.input[1]]))
    return found, other + sum(2.0 * rows * inner * outer for rows, inner, outer in found)


def together(call: Callable[[], object], workers: int) -> float:
    """Seconds until as many calls at a time are done."""
    threads = [threading.Thread(target=call) for _ in range(workers)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def bare(shapes: list[tuple[int, int, int]], batch: int, eight: bool, folder: Path) -> Callable[[], object]:
    """A call that does the products of one pass and nothing else, each with weights of its own; a
    session for every six.
    """
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    kind = np.uint8 if eight else np.float32
    calls = []
    for begin in range(0, len(shapes), 6):
        part = shapes[begin : begin + 6]
        nodes, values, inputs, outputs, fed = [], [], {}, [], {}
        for n, (rows, inner, outer) in enumerate(part):
            name = f"x_{rows}_{inner}"
            if name not in inputs:
                element = TensorProto.UINT8 if eight else TensorProto.FLOAT
                inputs[name] = helper.make_tensor_value_info(name, element, [rows * batch, inner])
                fed[name] = rng.integers(0, 255, (rows * batch, inner)).astype(kind)
            weight = rng.integers(-127, 127, (inner, outer)).astype(np.int8 if eight else np.float32)
            values.append(numpy_helper.from_array(weight, f"w{n}"))
            nodes.append(helper.make_node("MatMulInteger" if eight else "MatMul", [name, f"w{n}"], [f"y{n}"]))
            outputs.append(
                helper.make_tensor_value_info(
                    f"y{n}", TensorProto.INT32 if eight else TensorProto.FLOAT, [rows * batch, outer]
                )
            )
        graph = helper.make_graph(nodes, "bare", list(inputs.values()), outputs, values)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        file = folder / f"{begin}.onnx"
        onnx.save(model, file)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        calls.append((session, fed))

    def call() -> None:
        for session, fed in calls:
            session.run(None, fed)

    return call


def large(side: int = 1536) -> float:
    """Operations per second of numpy's own product of large float32 matrices, on all cores, in a
    process of its own.
    """
    code = (
        "import numpy as np, time\n"
        f"a = np.ones(({side}, {side}), np.float32); a @ a; best = 9\n"
        "for _ in range(5):\n start = time.perf_counter(); a @ a; best = min(best, time.perf_counter() - start)\n"
        f"print(2 * {side} ** 3 / best)"
    )
    env = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return float(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
    )


def measure(bundle: Path, source: Path, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    from fashionrec.embedder.embed import Embedder
    from fashionrec.models.bundle import Bundle

    workers, batch = cores(), options.batch
    opened = Bundle.open(bundle)
    embedder = Embedder(opened, threads=1, device="cpu")
    shapes, operations = products(source / "image.onnx")
    with_weights = sum(2.0 * rows * inner * outer for rows, inner, outer in shapes)
    values = np.random.default_rng(0).normal(size=(batch, 3, *opened.spec["image"]["crop"])).astype(np.float32)
    times: dict[str, list[float]] = {"encoder": [], "products": []}
    with tempfile.TemporaryDirectory() as folder:
        call = bare(shapes, batch, precision == "int8", Path(folder))
        for n in range(options.rounds + 1):
            pair = together(lambda: embedder.answer(values), workers), together(call, workers)
            if n:
                times["encoder"].append(pair[0])
                times["products"].append(pair[1])
    count = workers * batch
    rate = statistics.median(count * with_weights / spent for spent in times["products"])
    return {
        "precision": precision,
        "batch": batch,
        "workers": workers,
        "pictures_per_s": round(statistics.median(count / spent for spent in times["encoder"]), 1),
        "GOP_a_picture": round(operations / 1e9, 2),
        "GOP_per_s_of_bare_products": round(rate / 1e9),
        "fraction": round(
            statistics.median(
                (count * operations / a) / (count * with_weights / b)
                for a, b in zip(times["encoder"], times["products"], strict=True)
            ),
            3,
        ),
    }


def profile(bundle: Path, batch: int) -> dict[str, str]:
    """Shares of the time by kind of node, one call at a time in one thread."""
    import onnxruntime as ort

    from fashionrec.models.bundle import Bundle

    opened = Bundle.open(bundle)
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = ort.InferenceSession(
            str(bundle / opened.graphs["image"]), options, providers=["CPUExecutionProvider"]
        )
        values = np.zeros((batch, 3, *opened.spec["image"]["crop"]), np.float32)
        for _ in range(4):
            session.run(None, {opened.spec["image"]["input"]: values})
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    whole = sum(spent.values())
    return {kind: f"{100 * value / whole:.1f} %" for kind, value in spent.most_common(12)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks embed", description=__doc__)
    parser.add_argument("--embedder", type=Path, help="a float32 bundle")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/build-benchmark"))
    options, _ = parser.parse_known_args([word for word in sys.argv[1:] if word != "embed"])
    options.out.mkdir(parents=True, exist_ok=True)
    source = options.embedder or options.out / "clip.bundle"
    if not source.exists():
        weights.fashionrec("export", weights.clip(options.out), "--out", source)
    rows = []
    for precision in options.precisions:
        bundle = weights.encoder_in(source, precision, options.out)
        row = measure(bundle, source, precision, options)
        if options.profile:
            row["profile"] = profile(bundle, options.batch)
        rows.append(row)
        print(json.dumps(row, indent=2), flush=True)
    print(f"numpy, large float32 matrices, all cores: {large() / 1e9:.0f} GOP/s")


if __name__ == "__main__":
    main()
