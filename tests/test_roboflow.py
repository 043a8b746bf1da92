"""Roboflow: names, keys, and what the package is asked for."""

import sys
import types
from pathlib import Path

import pytest

from fashionrec.dataset.roboflow import downloaded, parse_version
from fashionrec.errors import DataError, MissingExtra

pytest.importorskip("roboflow")


def test_a_version_is_three_parts() -> None:
    assert parse_version("team/garments/3") == ("team", "garments", 3)
    for wrong in ("team/garments", "team/garments/latest", "/garments/3/", "a/b/c/4"):
        with pytest.raises(DataError):
            parse_version(wrong)


def fake(monkeypatch: pytest.MonkeyPatch, download: object) -> list[object]:
    """A package of the same call shape: Roboflow(api_key).workspace().project().version().download()."""
    asked: list[object] = []

    class Link:
        def __init__(self, **options: object) -> None:
            asked.append(options)

        def _next(self, name: object) -> "Link":
            asked.append(name)
            return self

        workspace = project = version = _next

        def download(self, model_format: str, location: str) -> None:
            asked.append(model_format)
            download(Path(location))  # type: ignore[operator]

    module = types.ModuleType("roboflow")
    module.Roboflow = Link  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "roboflow", module)
    monkeypatch.setenv("ROBOFLOW_API_KEY", "canary-key")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    return asked


def test_the_package_is_asked_for_the_version_in_yolo_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(folder: Path) -> None:
        folder.mkdir()
        (folder / "data.yaml").write_text("names: [top]")

    asked = fake(monkeypatch, download)
    with downloaded("team/garments/3", tmp_path) as folder:
        assert (folder / "data.yaml").is_file()
    assert asked == [{"api_key": "canary-key"}, "team", "garments", 3, "yolov8"]
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_one_line_without_the_key_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(folder: Path) -> None:
        folder.mkdir()
        raise RuntimeError("401 for canary-key\nat version 3")

    fake(monkeypatch, download)
    with pytest.raises(DataError) as caught, downloaded("team/garments/3", tmp_path):
        pass
    assert "canary" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_half_empty_download_is_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, lambda folder: folder.mkdir())
    with pytest.raises(DataError, match=r"no data\.yaml"), downloaded("team/garments/3", tmp_path):
        pass


def test_without_the_package_the_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", "canary-key")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as caught, downloaded("team/garments/3", tmp_path):
        pass
    assert "pip install" in caught.value.hint
