"""A catalogue on disk: generations and their lock, items in SQLite, vectors in FAISS.

::

    CATALOGUE/
      catalogue.json              the pointer: format and version, and the served generation
      generations/000003/
        manifest.json             every file with size and sha256, bundles, counts, settings, index
        items.sqlite              photos, garments, products, items, captions; columns and words
        changes.sqlite            the delta on top of the items of an earlier generation
        report.json               the report of the build
      segments/000003-image/      immutable; shared between generations
        vectors.faiss             a FAISS IndexFlatIP, or half floats in an IndexScalarQuantizer
        thumbnails.bin            concatenated JPEGs; items.sqlite has their offsets
      indexes/000003/             immutable; an approximate index over some of the segments
        index.faiss               proposes candidates, which are scored with the segments' vectors
      bundles/detector-1a2b…/, embedder-3c4d…/
      captions.sqlite             every caption ever made for this catalogue: paid for once
      measured.json               evaluation results of one generation
      work/                       the journal of an unfinished build
      .lock                       held by the only writer
"""
