"""The tables of an items file: written by :mod:`item_writer`, and all that a reader accepts."""

from __future__ import annotations

APPLICATION_ID = 0x46524543  # "FREC"
SCHEMA_VERSION = 3
#: Without parts: columns are read from rows, words from an FTS5 index.
OLD_VERSION = 2

SCHEMA = """
CREATE TABLE photos (
  sha256 TEXT PRIMARY KEY, width INTEGER NOT NULL, height INTEGER NOT NULL, build_key TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE garments (
  garment_no INTEGER PRIMARY KEY, photo TEXT NOT NULL REFERENCES photos, position INTEGER NOT NULL,
  class_name TEXT, confidence REAL, x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL,
  whole_photo INTEGER NOT NULL, segment TEXT NOT NULL, row INTEGER NOT NULL,
  thumb_offset INTEGER NOT NULL, thumb_size INTEGER NOT NULL,
  UNIQUE (photo, position), UNIQUE (segment, row)
);
CREATE TABLE entries (
  entry_no INTEGER PRIMARY KEY, image TEXT NOT NULL, base TEXT NOT NULL, product_id TEXT NOT NULL,
  photo TEXT NOT NULL REFERENCES photos, metadata TEXT NOT NULL, UNIQUE (image, product_id)
);
CREATE INDEX entries_by_photo ON entries (photo, product_id);
CREATE INDEX entries_by_product ON entries (product_id);
CREATE TABLE items (
  item_no INTEGER PRIMARY KEY, item_id TEXT NOT NULL UNIQUE, entry_no INTEGER NOT NULL REFERENCES entries,
  garment_no INTEGER NOT NULL REFERENCES garments, product_id TEXT NOT NULL, worn_with INTEGER NOT NULL,
  words TEXT NOT NULL
);
CREATE INDEX items_by_garment ON items (garment_no);
CREATE INDEX items_by_product ON items (product_id);
CREATE INDEX items_by_entry ON items (entry_no);
CREATE TABLE captions (
  garment_no INTEGER PRIMARY KEY REFERENCES garments, caption_en TEXT NOT NULL, caption_ko TEXT NOT NULL,
  attributes TEXT NOT NULL, embedding_text TEXT NOT NULL, captioner TEXT NOT NULL, segment TEXT, row INTEGER,
  UNIQUE (segment, row)
);
CREATE TABLE caption_words (garment_no INTEGER PRIMARY KEY REFERENCES garments, words TEXT NOT NULL);
CREATE TABLE arrays (
  owner TEXT NOT NULL, part INTEGER NOT NULL, kind TEXT NOT NULL, piece INTEGER NOT NULL, dtype TEXT NOT NULL,
  size INTEGER NOT NULL, content BLOB NOT NULL, UNIQUE (owner, part, kind, piece)
);
CREATE TABLE totals (name TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE gone_photos (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE gone_garments (key INTEGER PRIMARY KEY);
CREATE TABLE gone_entries (key INTEGER PRIMARY KEY);
CREATE TABLE gone_items (key INTEGER PRIMARY KEY);
"""
#: Tables with rows of the base that a delta removes (listed by key in ``gone_``) and replaces.
LAYERED = {"photos": "sha256", "garments": "garment_no", "entries": "entry_no", "items": "item_no"}
#: Tables allowed in a file of either version.
READABLE = f"""{SCHEMA}
CREATE VIRTUAL TABLE item_text USING fts5 (words, content='items', content_rowid='item_no', tokenize='unicode61');
"""
