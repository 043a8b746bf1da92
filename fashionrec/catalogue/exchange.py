"""Export a catalogue to plain tables and arrays, and import it: for other systems, archives and
pandas.

::

    EXPORT/
      export.json            format, settings, bundles, counts
      entries.parquet        rows of the product table: image, product_id, photo, metadata ...
      items.parquet          items: id, garment, box, caption, thumbnail (JPEG), array rows
      image_vectors.npy      float32 [garments, dim]
      caption_vectors.npy    float32 [captions, dim]
      bundles/detector, bundles/embedder
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from fashionrec.catalogue.catalogue import Catalogue
from fashionrec.catalogue.exchange_files import (
    SparseColumn,
    StagedGarments,
    VectorFile,
    VectorRows,
    write_header,
    write_rows,
)
from fashionrec.common.documents import parse_json, read_json
from fashionrec.common.extras import load
from fashionrec.common.files import dump_json, write_atomic
from fashionrec.common.folder import Folder
from fashionrec.config import Config
from fashionrec.errors import CatalogueError, DataError
from fashionrec.models.bundle import Bundle
from fashionrec.models.runs import installed_versions
from fashionrec.products.parquet import stream_parquet
from fashionrec.store import generations
from fashionrec.store.assemble import SegmentWriter
from fashionrec.store.content import CaptionRow, GarmentRow, PhotoRow
from fashionrec.store.item_writer import product_words
from fashionrec.store.items import ItemReader, StoredItem
from fashionrec.store.manifest import CatalogueSettings
from fashionrec.store.rows import AGAIN
from fashionrec.store.thumbnails import Thumbnails
from fashionrec.store.vectors import VectorStore, open_store
from fashionrec.store.writer import GenerationWriter
from fashionrec.types import Box

FORMAT, FORMAT_VERSION = "fashionrec-export", 1
_IMAGES, _CAPTIONS = "image_vectors.npy", "caption_vectors.npy"
#: Maximum bytes of an export's document; about 1,000 per item.
_DOCUMENT_LIMIT = 8 << 30
_BATCH = 4096
_JPEG = b"\xff\xd8"
#: Columns of an item besides its garment.
_ITEM = (
    *("item_id", "product_id", "worn_with", "image", "photo", "position", "caption_en", "caption_ko", "caption_words"),
    "metadata",
)


def export_catalogue(root: Path, out: Path, config: Config) -> dict[str, Any]:
    """Write the served generation as tables and arrays into the new folder ``out``. Returns counts.

    Raises :class:`DataError` if ``out`` exists and is not empty, :class:`MissingExtra` without
    pandas and pyarrow.
    """
    load("pyarrow.parquet", what="exporting a catalogue", packages=("pandas", "pyarrow"))
    if not _is_free(out):
        raise DataError(f"{out} is not empty", hint="choose another folder")
    with Catalogue.open(root, config) as catalogue:
        generation = catalogue.generation
        generation.check(contents=True)
        (out / "bundles").mkdir(parents=True, exist_ok=True)
        write_rows(out / "entries.parquet", _entry_rows(catalogue.items))
        images, texts = (VectorRows(_open_vectors(catalogue, kind)) for kind in ("image", "caption"))
        write_rows(out / "items.parquet", _item_rows(catalogue, images, texts), _sparse(catalogue.items))
        _save(out / _IMAGES, catalogue, "image", images.positions)
        _save(out / _CAPTIONS, catalogue, "caption", texts.positions)
        bundles = {}
        for kind in generation.manifest.bundles:
            path = generation.bundle_path(kind)
            assert path is not None
            bundles[kind] = Bundle.open(path, kind).copy_to(out / "bundles" / kind).fingerprint
        document = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "generation": generation.name,
            "photos_from": generation.manifest.photos_from,
            "settings": generation.manifest.settings.to_dict(),
            "bundles": bundles,
            "counts": catalogue.counts,
            "vectors": {"images": len(images.positions), "captions": len(texts.positions)},
        }
        write_atomic(out / "export.json", dump_json(document))
    return document


def import_catalogue(source: Path, root: Path, config: Config) -> dict[str, int]:
    """Create a catalogue at ``root`` from an export, with the same item ids, captions and vectors.
    Returns counts.

    Raises :class:`DataError` if the export is damaged or inconsistent, :class:`CatalogueError` if
    ``root`` exists.
    """
    document = _read_document(source)
    if not _is_free(root):
        raise CatalogueError(f"{root} is not empty", hint="choose another folder")
    try:
        export = _read_export(source, document)
        with generations.writer_lock(root), GenerationWriter(root, config.index) as writer:
            _write_rows(writer, export)
            counts = writer.finish_items()
            writer.commit(
                "import",
                {"generation": writer.name, "imported": document["counts"]},
                bundles=export.bundles.values(),
                versions=installed_versions(),
                photos_from=document["photos_from"],
                settings=CatalogueSettings.from_dict(document["settings"]),
            )
        return counts
    except (KeyError, ValueError, TypeError, OSError, IndexError, AttributeError, OverflowError) as error:
        Folder(root.parent).remove(root.name, ignore_errors=True)
        raise DataError(f"{source} cannot be imported: {error!r}", hint="export it again") from None
    except DataError:
        Folder(root.parent).remove(root.name, ignore_errors=True)
        raise


def _is_free(folder: Path) -> bool:
    """Return whether a folder can be created here: the name is unused, or an empty folder."""
    return not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir()))


@dataclass(frozen=True)
class _Export:
    """An export with consistent arrays and bundles and readable rows."""

    folder: Path
    images: VectorFile
    texts: VectorFile
    bundles: dict[str, Bundle]

    def entries(self) -> Iterator[dict[str, Any]]:
        return stream_parquet(self.folder / "entries.parquet")

    def items(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        return stream_parquet(self.folder / "items.parquet", columns)


def _read_export(source: Path, document: dict[str, Any]) -> _Export:
    images = VectorFile(source / _IMAGES, document["vectors"]["images"])
    texts = VectorFile(source / _CAPTIONS, document["vectors"]["captions"])
    if not {"embedder"} <= document["bundles"].keys() <= {"embedder", "detector"}:
        raise DataError(f"{source} does not name its models", hint="export it again")
    bundles = {kind: Bundle.open(source / "bundles" / kind, kind, verify=True) for kind in document["bundles"]}
    if {kind: bundle.fingerprint for kind, bundle in bundles.items()} != document["bundles"]:
        raise DataError(f"the bundles in {source} are not the ones it was made with")
    dim = int(bundles["embedder"].spec["dim"])
    if images.dim != dim or (texts.count and texts.dim != dim):
        raise DataError(f"vectors in {source} have length {images.dim}, the encoder's {dim}")
    export = _Export(source, images, texts, bundles)
    for _ in export.entries():  # unreadable rows are found before anything is written
        pass
    for item in export.items():
        if not 0 <= int(item["image_vector"]) < images.count:
            raise DataError(f"item {item['item_id']!r} has no vector: row {item['image_vector']} of {images.count}")
        if not (isinstance(item["thumbnail"], bytes) and item["thumbnail"].startswith(_JPEG)):
            raise DataError(f"the thumbnail of item {item['item_id']!r} is not a JPEG")
    return export


def _write_rows(writer: GenerationWriter, export: _Export) -> None:
    """Write photos, garments, captions, entries and items unchanged."""
    encoder, dim = export.bundles["embedder"].fingerprint, export.images.dim
    segment, words = (writer.new_segment(kind, encoder, dim) for kind in ("image", "caption"))
    with StagedGarments(writer.items_path.with_name("garments.sqlite")) as staged:
        for item in export.items(StagedGarments.COLUMNS):
            staged.add(item)
        for entry in export.entries():
            photo = entry["photo"]
            if not writer.items.has_photo(photo):
                garments = staged.of_photo(photo)
                rows = tuple(_add_garment(segment, item, export.images) for item in garments)
                made = PhotoRow(photo, int(entry["width"]), int(entry["height"]), entry["build_key"], rows)
                for item, number in zip(garments, writer.items.add_photo(made), strict=True):
                    caption = _caption(item, export.texts, words)
                    if caption is not None:
                        writer.items.add_caption(number, caption)
            metadata = parse_json(entry["metadata"])
            writer.items.add_entry(entry["image"], entry["base"], entry["product_id"], photo, metadata)
    for item in export.items(_ITEM):
        metadata = parse_json(item["metadata"])
        said = item.get("caption_words") or f"{item['caption_en'] or ''} {item['caption_ko'] or ''}"
        text = "" if item["worn_with"] else product_words(metadata, said)
        entry_no = writer.items.entry_number(item["image"], item["product_id"])
        number = writer.items.garment_number(item["photo"], int(item["position"]))
        writer.items.add_item(item["item_id"], entry_no, number, item["product_id"], bool(item["worn_with"]), text)


def _add_garment(segment: SegmentWriter, item: dict[str, Any], images: VectorFile) -> GarmentRow:
    row, offset = segment.add(images[int(item["image_vector"])].tobytes(), item["thumbnail"])
    box = Box(*(float(item[side]) for side in ("x1", "y1", "x2", "y2")))
    return GarmentRow(
        *(int(item["position"]), item["class_name"], item["confidence"], box, bool(item["whole_photo"])),
        *(segment.name, row, offset, len(item["thumbnail"])),
    )


def _entry_rows(items: ItemReader) -> Iterator[dict[str, Any]]:
    for entry in items.entries():
        photo = _photo(items, entry.photo)
        seen = {"width": photo.width, "height": photo.height, "build_key": photo.build_key}
        yield {**asdict(entry), **seen, "metadata": json.dumps(entry.metadata, ensure_ascii=False)}


def _sparse(items: ItemReader) -> dict[str, SparseColumn]:
    """Return how many items have a value, for the optional columns of an export."""
    total, has = items.presence()
    texts = dict.fromkeys(("caption_en", "caption_ko", "attributes", "embedding_text", "captioner"), "caption")
    columns = {"class_name": "class_name", "confidence": "confidence", "caption_vector": "caption_vector", **texts}
    examples = {"confidence": 0.0, "caption_vector": 0}
    return {
        column: SparseColumn(examples.get(column, ""), has[what] > 0, has[what] == total)
        for column, what in {**columns, "caption_words": "caption_words"}.items()
    }


def _item_rows(catalogue: Catalogue, images: VectorRows, texts: VectorRows) -> Iterator[dict[str, Any]]:
    photo_of = lru_cache(64)(partial(_photo, catalogue.items))  # the items of one photo are adjacent
    with Thumbnails(catalogue.root) as thumbnails:
        for stored in catalogue.items.everything():
            garment = _garment(photo_of(stored.photo), stored)
            caption = catalogue.items.caption(stored.photo, garment.position)
            text = texts.row(stored.caption_at) if stored.caption_at else None
            yield _row(stored, garment, caption, images.row(stored.image_at), text, thumbnails.read(*stored.thumb))


def _garment(photo: PhotoRow, stored: StoredItem) -> GarmentRow:
    """Return an item's garment from the photo of its entry."""
    for garment in photo.garments:
        if (garment.segment, garment.row) == stored.image_at:
            return garment
    raise CatalogueError(f"catalogue is damaged: item {stored.item.item_id!r:.80} is not in its photo", hint=AGAIN)


def _row(
    stored: StoredItem,
    garment: GarmentRow,
    caption: CaptionRow | None,
    vector: int,
    text: int | None,
    thumbnail: bytes,
) -> dict[str, Any]:
    return {
        "item_id": stored.item.item_id,
        "product_id": stored.item.product_id,
        "worn_with": stored.worn_with,
        "image": stored.item.image,
        "photo": stored.photo,
        "position": garment.position,
        "class_name": garment.class_name,
        "confidence": garment.confidence,
        **dict(zip(("x1", "y1", "x2", "y2"), garment.box, strict=True)),
        "whole_photo": garment.whole_photo,
        "image_vector": vector,
        "caption_vector": text,
        "caption_en": caption.caption_en if caption else None,
        "caption_ko": caption.caption_ko if caption else None,
        "attributes": json.dumps(caption.attributes, ensure_ascii=False) if caption else None,
        "embedding_text": caption.embedding_text if caption else None,
        "captioner": caption.captioner if caption else None,
        "caption_words": caption.words or None if caption else None,
        "metadata": json.dumps(stored.item.metadata, ensure_ascii=False),
        "thumbnail": thumbnail,
    }


def _caption(item: dict[str, Any], texts: VectorFile, words: SegmentWriter) -> CaptionRow | None:
    if item["caption_en"] is None:
        return None
    place: tuple[str | None, int | None] = (None, None)
    if item["caption_vector"] is not None:
        place = words.name, words.add(texts[int(item["caption_vector"])].tobytes(), b"")[0]
    fields = parse_json(item["attributes"])
    said = (item["caption_en"], item["caption_ko"], fields, item["embedding_text"], item["captioner"])
    return CaptionRow(*said, *place, item.get("caption_words") or "")


def _photo(items: ItemReader, sha256: str) -> PhotoRow:
    photo = items.photo(sha256)
    if photo is None:
        raise CatalogueError(f"catalogue is damaged: photo {sha256[:12]} is not in it")
    return photo


def _open_vectors(catalogue: Catalogue, kind: str) -> VectorStore:
    return open_store(catalogue.root, catalogue.generation.manifest.segments, kind)


def _save(path: Path, catalogue: Catalogue, kind: str, positions: Sequence[int]) -> None:
    """Write the vectors at some positions as one array, in parts."""
    with path.open("wb") as file:
        write_header(file, len(positions), _open_vectors(catalogue, kind).dim)
        for start in range(0, len(positions), _BATCH):
            # reopened for each part, which unmaps the pages of the part before
            file.write(_open_vectors(catalogue, kind).fetch(positions[start : start + _BATCH]).data)


def _read_document(source: Path) -> dict[str, Any]:
    path = source / "export.json"
    folder = Folder(source, "export")
    try:
        if source.is_dir():
            folder.check()
        with folder.open("export.json") as file:
            document = read_json(file, limit=_DOCUMENT_LIMIT)
    except FileNotFoundError:
        raise DataError(
            f"{source} is not an export: it has no export.json", hint="fashionrec catalogue export"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}", hint="export it again") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(f"{path} is not the document of an export", hint="fashionrec catalogue export")
    if document.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{source} is an export of format {document.get('format_version')}, not {FORMAT_VERSION}")
    return document
