"""What a catalogue is on the disk: generations and their lock, items in SQLite, vectors in FAISS.

::

    CATALOGUE/
      catalogue.json                  the pointer: format and version, and which generation is served
      generations/000003/
        manifest.json                 every file with size and sha256, bundles, counts, settings, the index as measured
        items.sqlite                  photos, garments, products' rows, items, captions; columns and words in parts
        changes.sqlite                what differs from the items, which are then another name of an earlier generation's
        report.json                   what the build did
      segments/000003-image/          immutable; shared between generations
        vectors.faiss                 raw vectors: a FAISS IndexFlatIP, or half floats in an IndexScalarQuantizer
        thumbnails.bin                JPEGs one after another; items.sqlite knows where each begins
      indexes/000003/                 immutable; an approximate index over some of the segments, where one pays
        index.faiss                   finds candidates, which are scored again from the segments
      bundles/detector-1a2b…/, embedder-3c4d…/
      captions.sqlite                 every caption ever made for this catalogue: paid for once
      measured.json                   what evaluations found out about one generation; made again by `evaluate`
      work/                           the journal of a build that is not finished
      .lock                           held by the one writer
"""
