"""Atomic files and bundles: whole or not there; a damaged one is a clear error."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

from fashionrec.common.files import canonical_json, fingerprint, write_atomic
from fashionrec.errors import ModelError
from fashionrec.models.bundle import Bundle, is_bundle, write_bundle


def make(tmp_path: Path, name: str = "b", content: bytes = b"graph", **spec: object) -> Bundle:
    graph = tmp_path / "made.onnx"
    graph.write_bytes(content)
    return write_bundle(
        tmp_path / name,
        kind="detector",
        name="tiny",
        graphs={"detect": "model.onnx"},
        spec={"imgsz": 32, **spec},
        source={"file": "best.pt"},
        agreement={"score": 0.0},
        files={"model.onnx": graph},
    )


def test_a_bundle_reads_back_and_its_fingerprint_is_what_decides_its_output(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    assert Bundle.open(tmp_path / "b", "detector", verify=True) == bundle
    assert bundle.spec == {"imgsz": 32}
    assert make(tmp_path, "same").fingerprint == bundle.fingerprint
    assert make(tmp_path, "other", b"grapH").fingerprint != bundle.fingerprint
    assert make(tmp_path, "third", imgsz=64).fingerprint != bundle.fingerprint
    assert bundle.copy_to(tmp_path / "copy").fingerprint == bundle.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "copy", "made.onnx", "other", "same", "third"]


@pytest.mark.parametrize(
    "fault", ["missing", "truncated", "flipped", "manifest", "spec", "version", "foreign", "escape", "none"]
)
def test_every_fault_of_a_bundle_is_one_line_with_a_hint(tmp_path: Path, fault: str) -> None:
    folder = make(tmp_path).path
    graph, manifest = folder / "model.onnx", folder / "bundle.json"
    value = json.loads(manifest.read_text())
    if fault == "missing":
        graph.unlink()
    elif fault == "truncated":
        graph.write_bytes(b"gra")
    elif fault == "flipped":
        graph.write_bytes(b"grapx")
    elif fault == "manifest":
        manifest.write_text("{")
    elif fault == "spec":
        value["spec"]["imgsz"] = 64
    elif fault == "version":
        value["format_version"] = 7
    elif fault == "foreign":
        value = {"hello": 1}
    elif fault == "escape":
        value["files"]["../made.onnx"] = {"size": 5, "sha256": "0"}
    if fault in ("spec", "version", "foreign", "escape"):
        manifest.write_text(json.dumps(value))
    path = tmp_path / "nothing" if fault == "none" else folder
    with pytest.raises(ModelError) as caught:
        Bundle.open(path, verify=True)
    assert "\n" not in str(caught.value)


def test_a_graph_that_is_no_onnx_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        make(tmp_path).session("detect")


def test_kinds_are_not_mixed_up_and_nothing_is_overwritten(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(ModelError, match="not an embedder"):
        Bundle.open(tmp_path / "b", "embedder")
    with pytest.raises(ModelError, match="exists"):
        make(tmp_path)
    assert is_bundle(tmp_path / "b")


def test_a_failing_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bundle(
            tmp_path / "x",
            kind="detector",
            name="x",
            graphs={},
            spec={},
            source={},
            agreement={},
            files={"a": tmp_path / "missing"},
        )
    assert list(tmp_path.iterdir()) == []


def test_write_atomic_replaces_or_leaves(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_text() == "two"
    with pytest.raises(TypeError):
        write_atomic(path, 3)  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))


@pytest.mark.parametrize(
    ("device", "there", "taken"),
    [
        ("cpu", [TENSORRT, CUDA, CPU], [CPU]),
        ("auto", [CPU], [CPU]),
        ("auto", [TENSORRT, CUDA, CPU], [CUDA, CPU]),  # an engine takes minutes to build: only where it is asked for
        ("cuda", [CUDA, CPU], [CUDA, CPU]),
        ("tensorrt", [TENSORRT, CUDA, CPU], [TENSORRT, CUDA, CPU]),
        ("tensorrt", [TENSORRT, CPU], [TENSORRT, CPU]),
    ],
)
def test_a_device_is_asked_of_what_onnx_runtime_has(
    device: str, there: list[str], taken: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []
    bundle = replace(Bundle.open(TINY / "detector").copy_to(tmp_path / "bundle"), cache=tmp_path / "cache")
    bundle.spec["precision"] = "fp16"
    names = onnxruntime_with(there, asked, monkeypatch)
    bundle.session("detect", device=device)
    assert names() == taken
    for provider in asked:
        if isinstance(provider, tuple):
            options = provider[1]
            assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("1", "0")
            assert options["trt_engine_cache_path"].startswith(str(tmp_path / "cache" / "tensorrt"))


@pytest.mark.parametrize(("device", "there"), [("cuda", [CPU]), ("tensorrt", [CUDA, CPU]), ("tensorrt", [CPU])])
def test_a_device_that_is_not_there_is_refused(device: str, there: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime_with(there, [], monkeypatch)
    with pytest.raises(ModelError, match=f"project.device is {device}"):
        Bundle.open(TINY / "detector").session("detect", device=device)


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_provider_that_is_there_and_does_not_start_is_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime itself goes on with the CPU when the libraries of a GPU are missing."""
    onnxruntime_with([TENSORRT, CUDA, CPU], [], monkeypatch, started=[CPU])
    with pytest.raises(ModelError, match="cannot start here"):
        Bundle.open(TINY / "detector").session("detect", device=device)
    Bundle.open(TINY / "detector").session("detect", device="auto")


def onnxruntime_with(
    there: list[str], asked: list[Any], monkeypatch: pytest.MonkeyPatch, started: list[str] | None = None
) -> Callable[[], list[str]]:
    """ONNX Runtime as it is on a machine with these providers; what sessions ask for is put into
    ``asked``.
    """
    import onnxruntime

    def names() -> list[str]:
        return [provider if isinstance(provider, str) else provider[0] for provider in asked]

    class Session:
        def __init__(self, file: str, options: object, providers: list[Any], enable_fallback: int) -> None:
            asked[:] = providers

        def get_providers(self) -> list[str]:
            return started or names()

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return names


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=6))
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    turned = dict(reversed(list(value.items())))
    assert fingerprint(value) == fingerprint(turned)
    assert json.loads(canonical_json(value)) == value
