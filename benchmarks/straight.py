"""The straight stack, as one would write it by hand: `YOLO.predict` for each photo, CLIP for each
crop, FAISS's flat index.

python benchmarks/straight.py PHOTOS.txt YOLO.pt CLIP_FOLDER CONF OUT    (a process of its own: `python -m benchmarks build`)

Garments are cut as `build-index` cuts them by default (a margin of 5 %, padded to a white square),
and a photo without one is embedded whole, so that both index the same things. Threads are what the
libraries choose, unless STRAIGHT_THREADS is set.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

begin = time.perf_counter()

import faiss  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402
from transformers import CLIPImageProcessor, CLIPModel  # noqa: E402
from ultralytics import YOLO  # noqa: E402


def cut(photo: Image.Image, box: list[float]) -> Image.Image:
    x1, y1, x2, y2 = box
    margin = 0.05 * max(x2 - x1, y2 - y1)
    left, top = int(max(x1 - margin, 0)), int(max(y1 - margin, 0))
    right, bottom = round(min(x2 + margin, photo.width)), round(min(y2 + margin, photo.height))
    crop = photo.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    side = max(crop.size)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(crop, ((side - crop.width) // 2, (side - crop.height) // 2))
    return square


def main() -> None:
    listing, weights, clip, conf, out = sys.argv[1:6]
    photos = Path(listing).read_text().splitlines()
    yolo = YOLO(weights)
    model = CLIPModel.from_pretrained(clip).eval()
    processor = CLIPImageProcessor.from_pretrained(clip)
    threads = int(os.environ.get("STRAIGHT_THREADS", "0"))

    def one(path: str) -> tuple[list[list[float]], list[np.ndarray]]:
        photo = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        found = yolo.predict(photo, imgsz=640, conf=float(conf), iou=0.6, max_det=12, device="cpu", verbose=False)[0]
        boxes = found.boxes.xyxy.tolist() or [[0, 0, photo.width, photo.height]]
        vectors = []
        for box in boxes:
            inputs = processor(images=cut(photo, box), return_tensors="pt")
            with torch.no_grad():
                features = model.get_image_features(**inputs)
            features = getattr(features, "pooler_output", features)
            vectors.append((features / features.norm(dim=-1, keepdim=True)).numpy())
        return boxes, vectors

    for path in photos[:3]:
        one(path)
    if threads:
        torch.set_num_threads(threads)
    ready, before = time.perf_counter(), time.process_time()
    index = faiss.IndexFlatIP(512)
    rows: list[tuple[str, list[float]]] = []
    for path in photos:
        boxes, vectors = one(path)
        for box, vector in zip(boxes, vectors, strict=True):
            index.add(vector)
            rows.append((path, box))
    done, spent = time.perf_counter(), time.process_time() - before
    faiss.write_index(index, f"{out}.faiss")
    Path(f"{out}.json").write_text(json.dumps(rows))
    figures = {"ready_s": ready - begin, "seconds": done - ready, "garments": len(rows), "cpu_s": spent}
    print(json.dumps({**figures, "torch_threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
