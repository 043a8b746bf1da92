"""ONNX Runtime's execution providers for ``project.device``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fashionrec.common.system import private_folder, user_cache
from fashionrec.errors import ModelError

CPU, _CUDA, _TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
#: Best first; each falls back on the next for unsupported operators.
_WANTED = {"cpu": [CPU], "auto": [_CUDA, CPU], "cuda": [_CUDA, CPU], "tensorrt": [_TENSORRT, _CUDA, CPU]}
#: Providers that must exist if they are requested by name.
_NEEDED = {"cuda": _CUDA, "tensorrt": _TENSORRT}
_GPU_HINT = "pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu; or set project.device=auto"


def providers_for(
    device: str, available: Sequence[str], precision: str, engines: Callable[[], Path | None]
) -> list[str | tuple[str, dict[str, str]]]:
    """Return the providers of a session, with TensorRT's options. ``engines`` returns the folder
    for its engines (None: keep none).

    Raises :class:`ModelError` if the requested one does not exist.
    """
    needed = _NEEDED.get(device)
    if needed and needed not in available:
        raise ModelError(
            f"project.device is {device}, but this ONNX Runtime has no {needed.removesuffix('ExecutionProvider')} provider",
            hint=_GPU_HINT,
        )
    found = [provider for provider in _WANTED.get(device, _WANTED["auto"]) if provider in available]
    return [(name, _tensorrt_options(precision, engines())) if name == _TENSORRT else name for name in found]


def check_started(device: str, providers: Sequence[str]) -> None:
    """Raise :class:`ModelError` if a requested provider did not start: ONNX Runtime continues
    without it.
    """
    needed = _NEEDED.get(device)
    if needed and needed not in providers:
        raise ModelError(
            f"project.device is {device}, but it cannot start here: ONNX Runtime runs on {', '.join(providers)}",
            hint="install the libraries of CUDA, cuDNN and TensorRT that this release needs, or set project.device=auto",
        )


def engine_folder(cache: Path | None, fingerprint: str, graph: str) -> Path | None:
    """Return the folder for a graph's engines: in the user's cache folder, by model and TensorRT
    version.

    An engine is compiled code, so one that came with a bundle is never used.
    """
    import onnxruntime as ort

    versions = f"onnxruntime-{ort.__version__}-tensorrt-{_tensorrt_version()}"
    above = private_folder((cache or user_cache()) / "tensorrt")
    return above and private_folder(above / f"{fingerprint}-{graph}-{versions}")


def _tensorrt_version() -> str:
    from importlib import metadata  # 10 ms, which only TensorRT needs to pay

    for name in ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of-the-system"


def _tensorrt_options(precision: str, engines: Path | None) -> dict[str, str]:
    """Return TensorRT's options; building an engine takes minutes, so it is kept where that is
    safe.
    """
    options = {"trt_fp16_enable": str(int(precision == "fp16")), "trt_int8_enable": str(int(precision == "int8"))}
    if engines is not None:
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engines)}
    return options
