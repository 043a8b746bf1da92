"""Captions for a catalogue: ask for what is missing, record every outcome, serve a new generation with the texts.

::

    garments.py   which garments there are, what is known of each, and which are to be asked: the plan
    caches.py     the catalogue's captions.sqlite and the project's: every outcome, found in either, recorded in both
    known.py      garments whose attributes the products' data tell: what a captioner learns from, and is measured on
    run.py        the plan carried out, garment by garment
    batches.py    the plan carried out in batches, over days and restarts
    photos.py     photos that are in no catalogue, and those that a customer asks with
    imports.py    captions of somebody else's catalogue, taken over because the user says so
    publish.py    a new generation with what is known by then

Outcomes are recorded at once, so nothing that was asked (and paid) for is asked again, whatever happens to the generation that
was to hold it.
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
