"""The command line: contracts, exit codes, one-line errors with a hint, and nothing but results on
stdout.
"""

import importlib.metadata
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import command_line
import filelock
import pytest
from conftest import TINY, Result, keeps_its_contract
from PIL import Image

Cli = Callable[..., Result]
MODELS = ("--detector", TINY / "detector", "--embedder", TINY / "embedder")


def test_help_names_every_verb(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0
    for verb in (
        "fetch-dataset",
        "train",
        "finetune",
        "evaluate",
        "build-index",
        "caption",
        "query",
        "export",
        "demo",
        "doctor",
    ):
        assert f"  {verb} " in done.out
    assert cli("--version").out.startswith("fashionrec 0.")


def test_build_query_evaluate_verify(cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(TINY / "photos", tmp_path / "photos")
    built = cli("build-index", "photos", "--index", "c", *MODELS, "--json")
    assert built.code == 0, built.err
    assert built.document["items"] == 8
    keeps_its_contract("build-index", built.document)
    assert "detector:" in built.err
    asked = cli("query", "photos/red-blue.jpg", "--index", "c", "--json", "--html", "answer.html", "-k", "2")
    assert asked.code == 0, asked.err
    assert [g["class_name"] for g in asked.document["garments"]] == ["top", "pants"]
    assert len(asked.document["garments"][0]["hits"]) == 2
    assert (tmp_path / "answer.html").read_text().startswith("<!doctype html>")
    for garment, found in (("0", ["top"]), ("1", ["pants"]), ("pants", ["pants"]), ("all", ["top", "pants"])):
        one = cli("query", "photos/red-blue.jpg", "--index", "c", "--garment", garment, "--json")
        assert [g["class_name"] for g in one.document["garments"]] == found, one.err
    for garment in ("culottes", "2"):
        assert cli("query", "photos/red-blue.jpg", "--index", "c", "--garment", garment).code == 2
    human = cli("query", "photos/green.jpg", "--index", "c")
    assert "green.jpg" in human.out
    assert "whole photo" in human.err
    assert "next:" in human.err
    (tmp_path / "q.csv").write_text("image,product_id\nphotos/green.jpg,green.jpg\nphotos/red-blue.jpg,red-blue.jpg\n")
    scores = cli("evaluate", "--index", "c", "--queries", "q.csv", "--json")
    assert scores.code == 0, scores.err
    assert scores.document["recall_at_1"] == 1.0
    keeps_its_contract("evaluate-index", scores.document)
    assert cli("catalogue", "verify", "c").code == 0
    assert cli("catalogue", "show", "c", "--json").document["counts"]["products"] == 6
    assert cli("doctor", "--index", "c", "--json").document["catalogue"]["status"] == "healthy"


def test_the_catalogue_is_found_and_the_choice_is_said(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(TINY / "photos", tmp_path / "photos")
    assert cli("query", "photos/green.jpg").code == 2
    for name in ("data/one", "data/two"):
        assert cli("build-index", "photos", "--index", name, *MODELS, "--quiet").code == 0
        only = cli("query", "photos/green.jpg", "--json")
        if name == "data/one":
            assert only.code == 0
            assert "data/one (the only one" in only.err
    assert only.code == 2
    assert "2 catalogues" in only.err
    monkeypatch.setenv("FASHIONREC_INDEX", "data/two")
    chosen = cli("query", "photos/green.jpg", "--json")
    assert chosen.code == 0
    assert "data/two (environment FASHIONREC_INDEX)" in chosen.err


@pytest.fixture(scope="module")
def misused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with photos, a catalogue of them, an encoder that was cut off, and settings
    that are none.
    """
    folder = tmp_path_factory.mktemp("misused")
    shutil.copytree(TINY / "photos", folder / "photos")
    shutil.copytree(TINY / "embedder", folder / "cut")
    (folder / "cut" / "image.onnx").write_bytes(b"half")
    (folder / "empty").mkdir()
    (folder / "wrong.yaml").write_text("train: {epoch: 3}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("FASHIONREC_BUILD__WORKERS", "1")
        built = command_line.invoke(["build-index", "photos", "--index", "c", *MODELS, "--quiet"])
    assert built.exit_code == 0, built.stderr
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("query",), 2, "give a photo, --text or --like"),
        (("query", "none.jpg", "--index", "c"), 2, "no such photo"),
        (("query", "photos/green.jpg", "--index", "nowhere"), 2, "no catalogue at"),
        (("query", "photos/green.jpg", "--index", "photos"), 2, "not a catalogue"),
        (("query", "photos/green.jpg", "--index", "c", "--garment", "hat"), 2, "unknown garment 'hat'"),
        (("query", "photos/green.jpg", "--index", "c", "--html", "no/where.html"), 2, "no such folder: no"),
        (("query", "photos/green.jpg", "--index", "c", "--set", "query.kk=3"), 2, "unknown setting query.kk"),
        (("query", "photos/green.jpg", "--index", "c", "--config", "wrong.yaml"), 2, "unknown setting train.epoch"),
        (("query", "photos/green.jpg", "--index", "c", "--config", "none.yaml"), 2, "no such settings file: none.yaml"),
        (("query", "empty", "--index", "c"), 2, "no photos in empty"),
        (("build-index", "nowhere", "--index", "d"), 2, "no such file or folder: nowhere"),
        (("build-index", "empty", "--index", "d", *MODELS), 2, "no photos in"),
        (("build-index", "photos", "--index", "d", "--detector", "none.pt"), 2, "no such detector: none.pt"),
        (("build-index", "photos", "--index", "d", "--detector", TINY / "embedder"), 2, "not a detector"),
        (("build-index", "photos", "--index", "d"), 2, "no detector given"),
        (("build-index", "photos", "--index", "d", "--detector", "none", "--embedder", "cut"), 2, "is damaged"),
        (("build-index", "photos", "--index", "empty/../photos", *MODELS), 2, "not empty"),
        (("evaluate",), 2, "Missing: --data or --queries"),
        (("evaluate", "--weights", TINY / "detector", "--data", "none.yaml"), 2, "no such dataset"),
        (("evaluate", "--index", "c", "--queries", "none.csv"), 2, "no such file or folder: none.csv"),
        (("train",), 2, "Missing: --data"),
        (("train", "epochs"), 2, "unexpected argument 'epochs'"),
        pytest.param(("train", "data=none.yaml"), 2, "no such dataset", marks=pytest.mark.train),
        (("train", "mosiac=1"), 2, "unknown setting train.mosiac"),
        (("finetune", "--data", "x.yaml"), 2, "Missing: --weights"),
        (("finetune", "none.pt", "--data", "x.yaml"), 2, "no such weights: none.pt"),
        pytest.param(
            ("finetune", "--weights", "none.pt", "--data", "x.yaml"),
            2,
            "no such weights: none.pt",
            marks=pytest.mark.train,
        ),
        pytest.param(("export", "none.pt", "--out", "b"), 2, "no such checkpoint: none.pt", marks=pytest.mark.train),
        (("fetch-dataset", "magic", "--out", "d"), 2, "unknown source 'magic'"),
        (("fetch-dataset", "yolo:nowhere", "--out", "d"), 2, "no such file or folder: nowhere"),
        (("fetch-dataset", "synthetic", "--out", "photos"), 2, "not an empty"),
        (("fetch-dataset", "roboflow:a/b", "--out", "d"), 2, "WORKSPACE/PROJECT/VERSION"),
        (("fetch-dataset", "roboflow:a/b/1", "--out", "d"), 2, "ROBOFLOW_API_KEY is not set"),
        (("caption",), 2, "give photos, or a catalogue"),
        (("caption", "--index", "nowhere", "--captioner", "local"), 2, "no catalogue at"),
        (("catalogue", "show", "nowhere"), 2, "no catalogue at"),
        (("query", "--no-such-flag"), 2, "No such option"),
    ],
)
def test_wrong_use_is_one_line_and_a_hint_and_leaves_nothing_half_written(
    cli: Cli, tmp_path: Path, misused: Path, arguments: tuple[object, ...], code: int, words: str
) -> None:
    shutil.copytree(misused, tmp_path, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = cli(*arguments)
    assert done.code == code, done.err
    assert words in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert len(errors) <= 1
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert set(after) <= set(before), "something was written"


def test_a_catalogue_of_another_version_says_so(cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(TINY / "photos", tmp_path / "photos")
    cli("build-index", "photos", "--index", "c", *MODELS, "--quiet")
    pointer = tmp_path / "c" / "catalogue.json"
    pointer.write_text(pointer.read_text().replace('"format_version": 3', '"format_version": 4'))
    done = cli("query", "photos/green.jpg", "--index", "c")
    assert done.code == 2
    assert "format 4" in done.err
    assert "hint:" in done.err


def test_a_build_may_end_in_captions(cli: Cli, photos: Path) -> None:
    build = ("build-index", photos, "--index", "c", *MODELS, "--json")
    assert "captions" not in cli(*build).document
    done = cli(*build, "--set", "build.caption=local")
    assert done.code == 0, done.err
    assert (done.document["captions"]["made"], done.document["captions"]["failed"]) == (8, 0)
    assert cli("catalogue", "show", "c", "--json").document["counts"]["captions"] == 8


def test_too_many_failures_finish_and_exit_3(cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(TINY / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "bad.jpg").write_text("no")
    done = cli("build-index", "photos", "--index", "c", *MODELS, "--json")
    assert done.code == 3
    assert done.document["failed"] == 1
    assert done.document["failures"][0]["reason"] == "not-an-image"
    assert cli("query", "photos/green.jpg", "--index", "c", "--json").code == 0
    fine = cli("build-index", "photos", "--index", "c", *MODELS, "--set", "build.max_failures=0.5", "--json")
    assert fine.code == 0


def test_a_busy_catalogue_is_exit_75(cli: Cli, tmp_path: Path) -> None:
    from fashionrec.store.generations import writer_lock

    shutil.copytree(TINY / "photos", tmp_path / "photos")
    with writer_lock(tmp_path / "c"):
        done = cli("build-index", "photos", "--index", "c", *MODELS)
    assert done.code == 75
    assert "another process" in done.err


def in_place_of_the_lock(error: BaseException) -> Callable[..., None]:
    def acquire(*_: object, **__: object) -> None:
        raise error

    return acquire


def test_an_interrupt_is_exit_130(cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filelock.FileLock, "acquire", in_place_of_the_lock(KeyboardInterrupt()))
    assert cli("build-index", photos, "--index", "c", *MODELS).code == 130


def test_a_bug_is_one_line_and_a_traceback_only_with_debug(
    cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filelock.FileLock, "acquire", in_place_of_the_lock(ZeroDivisionError("planted")))
    build = ("build-index", photos, "--index", "c", *MODELS)
    done = cli(*build)
    assert (done.code, "Traceback" in done.err) == (1, False)
    assert "ZeroDivisionError: planted" in done.err
    assert "Traceback" in cli(*build, "--debug").err


def test_config_show_says_where_a_value_came_from(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("query: {k: 7}\n")
    done = cli("config", "show", "query", "--config", "mine.yaml", "--set", "query.min_score=0.1", "--json")
    assert done.document["query.k"] == {"value": 7, "origin": "mine.yaml"}
    assert done.document["query.min_score"]["origin"] == "--set query.min_score=0.1"
    assert done.document["query.garment"]["origin"] == "default"


def test_doctor_tells_whether_keys_are_there_and_never_what_they_are(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    done = cli("doctor", "--json")
    assert done.document["keys"] == {"OPENAI_API_KEY": True, "ROBOFLOW_API_KEY": False}
    assert "canary" not in done.out + done.err


VERSIONS = {
    **dict.fromkeys(("typer", "rich", "pydantic", "PyYAML", "numpy", "Pillow", "faiss-cpu", "tokenizers"), "1.0"),
    **{"onnxruntime": "1.2", "openai": "3", "torch": "2.1", "ultralytics": "8.3"},
}
DOCTOR = """\
Python {python}, {cores} cores
serving:
  typer          1.0
  rich           1.0
  pydantic       1.0
  PyYAML         1.0
  numpy          1.0
  Pillow         1.0
  onnxruntime    1.2
  faiss-cpu      1.0
  tokenizers     1.0
  openai         3
training:
  torch          2.1
  torchvision    not installed
  ultralytics    8.3
  transformers   not installed
  onnx           not installed
  roboflow       not installed
  pandas         not installed
  pyarrow        not installed
inference on: FirstProvider, SecondProvider
OPENAI_API_KEY: set (captions by GPT-4o)
ROBOFLOW_API_KEY: not set (fetch-dataset roboflow:...)
"""


def test_what_doctor_says_of_an_installation(cli: Cli, catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    def said(*words: str, code: int) -> list[str]:
        done = cli("doctor", *words)
        assert done.code == code, done.err
        assert done.out.startswith(beginning)
        return [*done.out.removeprefix(beginning).splitlines(), *done.err.splitlines()]

    installed = dict(VERSIONS)
    beginning = DOCTOR.format(python=sys.version.split()[0], cores=os.cpu_count())
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["FirstProvider", "SecondProvider"])
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setitem(sys.modules, "cv2", None)
    torchvision = "torch is installed without torchvision: pip install '.[train]' in a checkout of fashionrec"
    cv2 = (
        "cv2 cannot be imported (import of cv2 halted; None in sys.modules):"
        " pip install --force-reinstall opencv-python-headless"
    )
    assert said(code=3) == [f"problem: {torchvision}", f"problem: {cv2}", "error: 2 problems found"]
    assert cli("doctor", "--json").document["problems"] == [torchvision, cv2]
    del installed["torch"], installed["ultralytics"]
    beginning = beginning.replace("torch          2.1", "torch          not installed")
    beginning = beginning.replace("ultralytics    8.3", "ultralytics    not installed")
    assert said(code=0) == ["no problems found", "next: fashionrec demo"]
    assert said("--index", "catalogue", code=0) == [
        "catalogue catalogue: healthy",
        "no problems found",
        "next: fashionrec query PHOTO --index catalogue",
    ]
    (catalogue / "catalogue.json").write_text("{")
    status, problem, error = said("--index", "catalogue", code=3)
    assert problem.startswith("problem: catalogue is damaged: catalogue/catalogue.json: ")
    assert status == f"catalogue catalogue: {problem.removeprefix('problem: ')}"
    assert error == "error: 1 problem found"
    broken = cli("doctor", "--index", "catalogue", "--json").document["catalogue"]
    assert broken == {"path": "catalogue", "status": problem.removeprefix("problem: "), "counts": {}}
    installed["onnxruntime-gpu"] = "1.2"
    assert said(code=3) == [
        "problem: onnxruntime and onnxruntime-gpu are both installed, which disables CUDA: uninstall both, install one again",
        "error: 1 problem found",
    ]
    del installed["onnxruntime"]
    beginning = beginning.replace("onnxruntime    1.2", "onnxruntime    not installed")
    beginning = beginning.replace("FirstProvider, SecondProvider", "nothing")
    assert said(code=3) == [
        "problem: onnxruntime is not installed: pip install . in a checkout of fashionrec",
        "error: 1 problem found",
    ]
    assert cli("doctor", "--json").document["packages"] == {
        name: installed.get(name) for name in re.findall(r"(?m)^  (\S+)", beginning)
    }


def test_fetch_dataset_draws_a_world_with_its_table(cli: Cli, tmp_path: Path) -> None:
    done = cli("fetch-dataset", "synthetic", "--out", "w", "--images", "12", "--products", "6", "--seed", "3", "--json")
    assert done.code == 0, done.err
    assert done.document["counts"]["train"] == 8
    assert done.document["products"] == "w/catalogue/products.csv"
    header = (tmp_path / "w" / "annotations.csv").read_text().splitlines()[0]
    assert header == (
        "image_id,image_path,width,height,class_id,class_name,bbox_x_center,bbox_y_center,bbox_width,bbox_height"
    )
    assert json.loads((tmp_path / "w" / "dataset.json").read_text())["fingerprint"] == done.document["fingerprint"]


def test_fetch_dataset_takes_a_yolo_dataset_and_renumbers_it_by_name(cli: Cli, tmp_path: Path) -> None:
    for sub in ("images", "labels"):
        (tmp_path / "src" / "train" / sub).mkdir(parents=True)
    Image.new("RGB", (20, 10)).save(tmp_path / "src/train/images/a.png")
    Image.new("RGB", (20, 10)).save(tmp_path / "src/train/images/b.png")
    (tmp_path / "src/train/images/c.png").write_bytes(b"broken")
    lines = [
        "0 .5 .5 .2 .2",
        "0 .5 .5 .2 .2",
        "1 .5 .5 .5 .5",
        "2 .9 .9 .4 .4",
        "0 .5 .5 0 0",
        "2 .1 .1 .5 .1 .5 .5 .1 .5",
    ]
    (tmp_path / "src/train/labels/a.txt").write_text("\n".join(lines))
    (tmp_path / "src/data.yaml").write_text("train: ../train/images\nnames: [top, hat, Pants]\n")
    done = cli("fetch-dataset", "yolo:src", "--out", "d", "--json")
    assert done.code == 0, done.err
    assert done.document["counts"] == {"train": 2, "dress": 0, "pants": 2, "skirt&pants": 0, "skirt": 0, "top": 1}
    assert done.document["dropped"] == {"no-area": 1, "not-an-image": 1, "repeated-box": 1, "unknown-class": 1}
    assert done.document["fixed"] == {"beyond-edge": 1}
    assert done.document["kept"] == {"no-label-file": 1}
    labels = (tmp_path / "d/train/labels/a.txt").read_text().splitlines()
    assert labels == [
        "4 0.500000 0.500000 0.200000 0.200000",
        "1 0.850000 0.850000 0.300000 0.300000",
        "1 0.300000 0.300000 0.400000 0.400000",
    ]
    assert cli("fetch-dataset", "yolo:src", "--out", "d").code == 2


def test_yolo_habits_work_as_flags_do(cli: Cli) -> None:
    """`k=v` words are settings of the verb's section: a wrong one is refused by its full name."""
    done = cli("train", "data=x.yaml", "epochs=many")
    assert done.code == 2
    assert "train.epochs" in done.err


def test_that_check_would_catch_a_wrong_flag(cli: Cli) -> None:
    assert "--indx" not in cli("query", "--help").out


PHOTOS_ALONE = "with photos, only --index, --captioner and --limit are allowed"
IMPORT_ALONE = "--import-captions takes no photos and no --index: it imports for all catalogues"
TWO_CATALOGUES = "two catalogues can only be compared as text, --json or --html"
EVALUATE = (
    "a detector: --weights best.pt --data data.yaml; a search: --index DIR with --queries, --texts or --outfits FILE"
)
BATCH = "--resume, --wait and --discard-unsent need --batch"
BATCH_EXAMPLE = "fashionrec caption --index C --batch --resume"
RETRY = "--retry failed,refused,filtered,truncated,invalid"
FINETUNE = "fashionrec finetune --weights best.pt --data NEW/data.yaml"
COUNTS = "for example --counts 4177,400,200"
MAP = '--map "t-shirt=top", or "shoe=null" to drop it'
ROBOFLOW = "--target WORKSPACE/PROJECT --weights best.pt; --dry-run shows what would be sent"
ENCODER = "give a bundle, a run folder, a folder written by save_pretrained, or a Hugging Face id (owner/name)"
TRANSLATE = 'fashionrec query --text "빨간 원피스" --translate'
ENGINE = "TensorRT engine files are no longer written: no command serves them"
ENGINE_HINT = "export a bundle and set project.device=tensorrt where it is served: ONNX Runtime builds the engine there"
IMAGE_SIZE = "--set train_embedder.image_size=N is the image size of a small CLIP"
QUERIES_ALONE = "--queries cannot be combined with --weights or --data"


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ("doctor . --index c", "give a folder or --index, not both", ""),
        ("caption a.jpg --index c --batch", PHOTOS_ALONE, ""),
        ("caption a.jpg --index c --status", PHOTOS_ALONE, ""),
        ("caption a.jpg --index c --recaption all", PHOTOS_ALONE, ""),
        ("caption a.jpg --index c --retry failed", PHOTOS_ALONE, ""),
        ("caption a.jpg --index c --dry-run", PHOTOS_ALONE, ""),
        ("caption a.jpg --index c --max-cost 0", PHOTOS_ALONE, ""),
        ("caption --index c --resume", BATCH, BATCH_EXAMPLE),
        ("caption --index c --wait", BATCH, BATCH_EXAMPLE),
        ("caption --index c --discard-unsent", BATCH, BATCH_EXAMPLE),
        (
            "caption --index c --only-missing --recaption all",
            "--only-missing cannot be combined with --recaption or --retry",
            "",
        ),
        (
            "caption --index c --only-missing --retry failed",
            "--only-missing cannot be combined with --recaption or --retry",
            "",
        ),
        ("caption --index c --retry ,", "',' is not a state that can be retried", RETRY),
        ("caption --index c --retry failed,asleep", "'failed,asleep' is not a state that can be retried", RETRY),
        ("caption --import-captions f a.jpg", IMPORT_ALONE, ""),
        ("caption --import-captions f --index c", IMPORT_ALONE, ""),
        (
            "query a.jpg --index a --index b --index c",
            "at most two catalogues can be compared",
            "--index A --index B compares two",
        ),
        ("query a.jpg --index a --index b --csv a.csv", TWO_CATALOGUES, "query one of them for other outputs"),
        ("query a.jpg --index a --index b --xlsx a.xlsx", TWO_CATALOGUES, "query one of them for other outputs"),
        ("query a.jpg --index a --index b --jsonl", TWO_CATALOGUES, "query one of them for other outputs"),
        ("query a.jpg --index a --index b --save-crops a", TWO_CATALOGUES, "query one of them for other outputs"),
        ("query a.jpg --open", "--open needs --html FILE", "fashionrec query photo.jpg --html answer.html --open"),
        (
            "train data=rows.csv model=a.pt",
            "model does not apply: rows.csv trains an encoder, not a detector",
            "fashionrec finetune --weights CLIP --data TABLE starts from a CLIP",
        ),
        ("train data=rows.csv --resume", "training of an encoder cannot be resumed", "start it again without resume"),
        (
            "train model=a.pt",
            "Missing: --data",
            "--data DIR/data.yaml trains a detector, --data products.csv an encoder",
        ),
        ("finetune --weights w", "Missing: --data", FINETUNE),
        ("finetune --data d", "Missing: --weights", FINETUNE),
        (
            "finetune --data rows.csv --weights c imgsz=64",
            "imgsz does not apply: rows.csv trains an encoder, not a detector",
            IMAGE_SIZE,
        ),
        (
            "finetune --data d --trust-pickle --set finetune.weights=w",
            "--trust-pickle needs an existing .pt file, not w",
            "",
        ),
        (
            "finetune --data d --config w.yaml --trust-pickle",
            "--trust-pickle needs the weights on the same command line",
            "--weights PATH.pt --trust-pickle",
        ),
        ("finetune --data d --weights w --trust-pickle", "--trust-pickle needs an existing .pt file, not w", ""),
        ("export a/clip --out o --images taken", "no photos in taken", ""),
        ("export best.pt --out o --images taken", "no photos in taken", ""),
        ("export a/clip --out o --precision fp16", "fp16 must be tested on your photos", "--images FOLDER"),
        (
            "fetch-dataset yolo:d --out o --counts 1,2,3,4",
            "--counts needs 3 numbers: TRAIN,VALID,TEST; got 1,2,3,4",
            COUNTS,
        ),
        ("fetch-dataset yolo:d --out o --counts 1/2", "--counts needs 3 numbers: TRAIN,VALID,TEST; got 1/2", COUNTS),
        ("dataset export d --to csv", "unknown export format 'csv'", "--to coco, voc, or roboflow"),
        ("catalogue remove --index c", "no product given", "name product ids, or --file with one id per line"),
        ("runs promote a --force", "--force needs a reason", "--why TEXT, which is recorded in run.json"),
        ("query a.jpg --no-caption --captioner local", "--no-caption and --captioner cannot be combined", ""),
        ("evaluate foo", "unexpected argument 'foo'", EVALUATE),
        ("train foo", "unexpected argument 'foo'", "settings are key=value, as in epochs=50"),
        ("export best.pt foo --out o", "unexpected argument 'foo'", "settings are key=value, as in imgsz=640"),
        ("finetune a b", "unexpected argument 'b'", "expected the weights, then key=value settings"),
        (
            "evaluate --index c --queries rows.csv --apply",
            "--apply needs --ways",
            "fashionrec evaluate --index DIR --queries FILE --ways --apply",
        ),
        ("evaluate", "Missing: --data or --queries", EVALUATE),
        ("evaluate --weights w", "Missing: --data", EVALUATE),
        ("evaluate --data d", "Missing: --weights", EVALUATE),
        ("evaluate --ways", "Missing: --queries", EVALUATE),
        ("evaluate --captions --weights w", "Missing: --data", EVALUATE),
        ("evaluate --captions --data d", "Missing: --weights", EVALUATE),
        ("evaluate --outfits rows.csv --weights w", "Missing: --data", EVALUATE),
        ("evaluate --outfits rows.csv --data d", "Missing: --weights", EVALUATE),
        ("evaluate --texts rows.csv --weights w", "Missing: --data", EVALUATE),
        ("evaluate --texts rows.csv --data d", "Missing: --weights", EVALUATE),
        ("evaluate --queries rows.csv --weights w", QUERIES_ALONE, EVALUATE),
        ("evaluate --queries rows.csv --data d", QUERIES_ALONE, EVALUATE),
        ("evaluate --ways --queries rows.csv --weights w", QUERIES_ALONE, EVALUATE),
        ("evaluate --ways --queries rows.csv --data d", QUERIES_ALONE, EVALUATE),
        ("evaluate --weights w --data d --queries rows.csv", QUERIES_ALONE, EVALUATE),
        (
            "train data=d/data.yaml --trust-pickle",
            "--trust-pickle needs the model on the same command line",
            "model=PATH.pt --trust-pickle",
        ),
        (
            "train data=rows.csv imgsz=64",
            "imgsz does not apply: rows.csv trains an encoder, not a detector",
            IMAGE_SIZE,
        ),
        ("export best.pt --out o --trust-pickle", "--trust-pickle needs an existing .pt file, not best.pt", ""),
        (
            "export w.safetensors --out o --trust-pickle",
            "--trust-pickle needs an existing .pt file, not w.safetensors",
            "",
        ),
        ("export best.pt --out o --format zip", "unknown format 'zip'", "the only format is bundle"),
        (
            "export best.pt --out taken",
            "taken exists and is not a bundle",
            "choose another --out, or remove the folder",
        ),
        ("export a/clip --out o --format engine", ENGINE, ENGINE_HINT),
        (
            "export a/clip --out o --data d",
            "--data is only for detectors",
            "encoders are tested on the photos of --images",
        ),
        ("fetch-dataset yolo:d --out o --counts 1,2", "--counts needs 3 numbers: TRAIN,VALID,TEST; got 1,2", COUNTS),
        (
            "fetch-dataset yolo:d --out o --counts 1,2,x",
            "--counts needs 3 numbers: TRAIN,VALID,TEST; got 1,2,x",
            COUNTS,
        ),
        ("fetch-dataset yolo:d --out o --map shoe", "--map needs THEIRS=OURS; got shoe", MAP),
        ("fetch-dataset yolo:d --out o --map =top", "--map needs THEIRS=OURS; got =top", MAP),
        ("dataset export d --to coco", "Missing: --out", "fashionrec dataset export d --to coco --out DIR"),
        ("dataset export d --to voc", "Missing: --out", "fashionrec dataset export d --to voc --out DIR"),
        ("dataset export d --to roboflow --weights w", "Missing: --target", ROBOFLOW),
        ("dataset export d --to roboflow --target a/b", "Missing: --weights", ROBOFLOW),
        (
            "dataset export d --to roboflow --target a/b --weights w --strategy x",
            "unknown strategy 'x'",
            "auto, uncertain, or disagree",
        ),
        (
            "compare --models a.pt",
            "Missing: --data",
            "fashionrec compare --models yolov8n.yaml efficientdet_d0 --data DIR/data.yaml",
        ),
        ("compare --models a.pt --data d --name a/b", "invalid folder name 'a/b'", "give paths with --out"),
        ("compare --models a.pt --data d --name ..", "invalid folder name '..'", "give paths with --out"),
        ("evaluate --index c", "Missing: --queries", EVALUATE),
        ("query a.jpg --translate", "--translate needs a --text to translate", TRANSLATE),
        ("query --translate", "--translate needs a --text to translate", TRANSLATE),
        ("export clip --out o", "no such encoder: clip", ENCODER),
        ("export ./clip --out o", "no such encoder: ./clip", ENCODER),
        ("export a/b/clip --out o", "no such encoder: a/b/clip", ENCODER),
        ("export runs/clip --out o", "no such encoder: runs/clip", ENCODER),
        ("finetune --data rows.csv --weights clip", "no such encoder: clip", ENCODER),
        ("catalogue remove --file ids.txt --index c", "no such file or folder: ids.txt", "check the path"),
        ("catalogue reindex c", "no catalogue at c", "create one with `fashionrec build-index PHOTOS --index DIR`"),
        (
            "evaluate --weights w --data d.yaml --html pages/a.html",
            "no such detector: w",
            "give a bundle, a run folder, or a checkpoint such as best.pt",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(
    words: str, error: str, hint: str, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("image,product_id\n")
    (tmp_path / "w.safetensors").write_bytes(b"")
    (tmp_path / "w.yaml").write_text("finetune: {weights: w}\n")
    (tmp_path / "taken").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = cli(*words.split())
    assert [line for line in done.err.splitlines() if line.startswith("error: ")] == [f"error: {error}"]
    assert [line for line in done.err.splitlines() if line.startswith("hint: ")] == ([f"hint: {hint}"] if hint else [])
    assert (done.code, done.out, sorted(tmp_path.rglob("*"))) == (2, "", before)
