"""Test what the fingerprint of a bundle leaves out: ready graphs and TensorRT's engines
of others.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Result
from systems import posix_only
from test_bundle_hostile import PICTURE, forge, manifest_of

from fashionrec.catalogue.build.report import BuildReport
from fashionrec.common.system import private_folder
from fashionrec.detector.detect import Detector
from fashionrec.embedder.embed import Embedder
from fashionrec.errors import CatalogueError, ModelError
from fashionrec.models.bundle import Bundle


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    shutil.copytree(TINY / "embedder", tmp_path / "embedder")
    return tmp_path / "embedder"


def other_ready(folder: Path, role: str = "image") -> None:
    """A ready graph that can be opened and answers otherwise: that of a tower of another scale."""
    onnx = pytest.importorskip("onnx")
    path = folder / f"{role}.ready.onnx"
    model = onnx.load(path)
    node = next(node for node in model.graph.node if node.op_type == "Flatten")
    before = node.output[0]
    node.output[0] = "flat"
    model.graph.node.append(onnx.helper.make_node("Sin", ["flat"], [before]))
    onnx.save(model, path)


def test_a_ready_graph_with_another_content_is_not_taken_into_a_catalogue(
    encoder: Path, build: Callable[..., BuildReport], photos: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    build(photos, tmp_path / "before")
    other_ready(encoder)
    size = Bundle.open(TINY / "embedder").files["image.ready.onnx"]["size"]
    (encoder / "image.ready.onnx").write_bytes((encoder / "image.ready.onnx").read_bytes()[:size].ljust(size, b"\0"))
    with pytest.raises(ModelError, match=r"image\.ready\.onnx has changed"):
        Bundle.open(encoder).copy_to(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    done = cli("build-index", photos, "--index", tmp_path / "c", "--embedder", encoder, "--detector", "none")
    assert (done.code, (tmp_path / "c").exists()) == (2, False)
    assert "has changed" in done.err
    (ready,) = (tmp_path / "before" / "bundles").glob("embedder-*/image.ready.onnx")
    ready.write_bytes((encoder / "image.ready.onnx").read_bytes())
    done = cli("catalogue", "verify", tmp_path / "before")
    assert done.code == 2
    assert "image.ready.onnx" in done.err


def test_a_ready_graph_that_answers_otherwise_is_left_out(encoder: Path, tmp_path: Path) -> None:
    other_ready(encoder)
    forge(encoder, manifest_of(encoder))
    bundle = Bundle.open(encoder, verify=True)
    assert bundle.fingerprint == Bundle.open(TINY / "embedder").fingerprint
    copy = bundle.copy_to(tmp_path / "copy")
    assert copy.fingerprint == bundle.fingerprint
    assert sorted(copy.graphs) == ["image", "text", "text.ready"]
    assert not (copy.path / "image.ready.onnx").exists()
    expected = Embedder.open(TINY / "embedder").embed_images([PICTURE])
    assert np.allclose(Embedder(replace(copy, at_once=True)).embed_images([PICTURE]), expected, atol=1e-6)
    whole = Bundle.open(TINY / "embedder").copy_to(tmp_path / "whole")
    assert set(whole.graphs) == {"image", "image.ready", "text", "text.ready"}


def test_a_ready_graph_that_is_no_graph_is_left_out(encoder: Path, tmp_path: Path) -> None:
    (encoder / "image.ready.onnx").write_bytes(b"no graph")
    forge(encoder, manifest_of(encoder))
    copy = Bundle.open(encoder, verify=True).copy_to(tmp_path / "copy")
    assert sorted(copy.graphs) == ["image", "text", "text.ready"]
    assert sorted(copy.files) == sorted({*manifest_of(encoder)["files"]} - {"image.ready.onnx"})
    assert not (copy.path / "image.ready.onnx").exists()


def test_a_ready_graph_that_reads_elsewhere_stops_a_query(encoder: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    (tmp_path / "secret.bin").write_bytes(b"\1" * 4096)
    model = onnx.load(encoder / "text.ready.onnx")
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    onnx.external_data_helper.set_external_data(tensor, "../secret.bin", 0, len(tensor.raw_data))
    tensor.ClearField("raw_data")
    (encoder / "text.ready.onnx").write_bytes(model.SerializeToString())
    forge(encoder, manifest_of(encoder))
    with pytest.raises(ModelError, match=r"would read '\.\./secret\.bin'"):
        Embedder(replace(Bundle.open(encoder), at_once=True)).embed_texts(["red"])
    with pytest.raises(ModelError, match=r"would read '\.\./secret\.bin'"):
        Bundle.open(encoder).copy_to(tmp_path / "copy")


def test_weights_that_the_fingerprint_leaves_out_are_none_of_a_graph(encoder: Path) -> None:
    """Else two models would have one fingerprint."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(encoder / "text.onnx")
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    (encoder / "w.ready.data").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "w.ready.data", 0, len(tensor.raw_data))
    tensor.ClearField("raw_data")
    (encoder / "text.onnx").write_bytes(model.SerializeToString())
    document = manifest_of(encoder)
    document["files"]["w.ready.data"] = {}
    forge(encoder, document)
    with pytest.raises(ModelError, match=r"would read 'w\.ready\.data'"):
        Embedder.open(encoder).embed_texts(["red"])


def test_another_bundle_in_the_place_of_a_catalogue_is_told(tmp_path: Path) -> None:
    from fashionrec.store.assemble import store_bundle

    bundle = Bundle.open(TINY / "embedder")
    target = tmp_path / "catalogue" / "bundles" / f"embedder-{bundle.fingerprint[:16]}"
    shutil.copytree(TINY / "embedder", target)
    assert store_bundle(tmp_path / "catalogue", bundle).fingerprint == bundle.fingerprint
    document = manifest_of(target)
    document["spec"]["logit_scale"] = 7.0
    forge(target, document)
    with pytest.raises(CatalogueError, match="damaged"):
        store_bundle(tmp_path / "catalogue", bundle)


def test_engines_are_kept_in_a_folder_of_the_user(encoder: Path, tmp_path: Path) -> None:
    (encoder / ".tensorrt").mkdir()
    bundle = replace(Bundle.open(encoder), cache=tmp_path / "cache")
    folder = bundle.engines("image")
    assert folder is not None
    assert folder.is_relative_to(tmp_path / "cache" / "tensorrt")
    assert bundle.fingerprint in folder.name
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (encoder / "image.onnx").write_bytes(os.urandom(bundle.files["image.onnx"]["size"]))
    with pytest.raises(ModelError, match="has changed"):  # its engine would be taken for that of the fingerprint
        bundle.engines("image")


@posix_only("links", "modes of files")
def test_a_folder_that_others_can_write_to_holds_no_engines(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    assert private_folder(tmp_path / "open") is None
    assert private_folder(tmp_path / "link") is None
    assert private_folder(tmp_path / "new" / "own") == tmp_path / "new" / "own"


# graphs that answer what nobody asked


@pytest.mark.parametrize("head", ["yolo", "end2end"])
@pytest.mark.parametrize("made", ["Shape", "Flatten", "ReduceSum", "Cast", "nothing"])
def test_a_detector_that_answers_otherwise_is_one_line(head: str, made: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    shutil.copytree(TINY / "detector", tmp_path / "detector")
    kinds = {"Shape": TensorProto.INT64, "Cast": TensorProto.STRING}
    node = {
        "Shape": helper.make_node("Shape", ["images"], ["y"]),
        "Flatten": helper.make_node("Flatten", ["images"], ["y"]),
        "ReduceSum": helper.make_node("ReduceSum", ["images"], ["y"], keepdims=0),
        "Cast": helper.make_node("Cast", ["images"], ["y"], to=TensorProto.STRING),
        "nothing": helper.make_node("ReduceMax", ["images"], ["y"], axes=[1], keepdims=0),  # [n, 64, 64]
    }[made]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 64, 64])],
        [helper.make_tensor_value_info("y", kinds.get(made, TensorProto.FLOAT), None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    document = manifest_of(tmp_path / "detector")
    onnx.save(model, tmp_path / "detector" / "detect.onnx")
    document["spec"]["head"] = head
    forge(tmp_path / "detector", document)
    detector = Detector(Bundle.open(tmp_path / "detector"), conf=0.1, iou=0.6, max_garments=5)
    if made == "nothing":  # it has the shape of an answer: whatever it says lies within the photo
        (found,) = detector.detect([PICTURE])
        assert all(0 <= one.box.x1 <= one.box.x2 <= PICTURE.width for one in found)
    else:
        with pytest.raises(ModelError, match="is damaged: its graph returns") as caught:
            detector.detect([PICTURE])
        assert "\n" not in str(caught.value)
