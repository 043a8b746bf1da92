"""The registry of captioners: name and implementation of each. To add one, add a line."""

#: Name (in the settings, and recorded with each caption) to ``module:class``; a leading dot means
#: ``fashionrec.captioner``. ``auto`` is the first one whose server is configured.
CAPTIONERS = {
    "openai": ".openai.remote:OpenAICaptioner",
    "local": ".local.provider:EncoderCaptioner",
}
#: Files and folders that a captioner keeps at the top of a catalogue: received answers, and
#: batches.
SPOOL_FILES = {"openai": ".captions.arrived"}
BATCH_FOLDERS = {"openai": "caption-batches"}
#: The captioner that only needs the catalogue's encoder: used by ``auto`` if no server is
#: configured, and for query photos.
ENCODER = "local"
#: Captioners that can translate text; ``--translate`` uses the first.
TRANSLATORS = ("openai",)
