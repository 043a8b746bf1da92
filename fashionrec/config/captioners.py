"""Who can describe garments: the names that the settings take, and where each captioner is. A new one is one line here."""

#: Name (in the settings, and beside each caption that is recorded) to ``module:class``, from ``fashionrec.captioner`` where
#: the module begins with a dot. ``auto`` is the first of them whose server is set up.
CAPTIONERS = {
    "openai": ".openai.remote:OpenAICaptioner",
    "local": ".local.provider:EncoderCaptioner",
}
#: What some of them keep at the top of a catalogue, by their names: a file where answers are written down as they come, and
#: a folder of batches.
SPOOL_FILES = {"openai": ".captions.arrived"}
BATCH_FOLDERS = {"openai": "caption-batches"}
#: The one that needs nothing but the catalogue's own encoder: ``auto`` where no server is set up, and for what a customer
#: asks with.
ENCODER = "local"
#: Those that translate words; ``--translate`` asks the first.
TRANSLATORS = ("openai",)
