"""Captions for a catalogue: request the missing ones, record every outcome, publish a generation.

::

    garments.py   the plan: which garments exist, which have a caption, which need a request
    caches.py     captions.sqlite of the catalogue and of the project: read either, write both
    known.py      garments whose attributes the product data give: calibration and evaluation data
    run.py        runs the plan garment by garment
    batches.py    runs the plan in batches, over days and restarts
    photos.py     captions of photos outside a catalogue, and of query photos
    imports.py    import of captions from an untrusted catalogue, at the user's request
    publish.py    a new generation with all captions recorded so far

Outcomes are recorded immediately, so nothing is requested (and paid for) twice, even if the
generation that was to contain it is never published.
"""

from fashionrec.captioner.job.caches import CACHE, Caches
from fashionrec.captioner.job.garments import Recaption
from fashionrec.captioner.job.imports import import_captions
from fashionrec.captioner.job.photos import caption_photos, describer
from fashionrec.captioner.job.run import caption_catalogue, status

__all__ = [
    "CACHE",
    "Caches",
    "Recaption",
    "caption_catalogue",
    "caption_photos",
    "describer",
    "import_captions",
    "status",
]
