"""Captions of garments: a typed bilingual record, made by one of several captioners, paid for once.

::

    base.py         the type Captioner: all that jobs, evaluation and commands know
    providers.py    captioners by their names (config/captioners.py is the registry)
    openai/         a server that speaks OpenAI's API        local/     the catalogue's own encoder
    job/            captions of a whole catalogue, and of photos
    vocabulary.py   the allowed values (configs/attributes.yaml)
    schema.py       the record, its JSON schema, its views
    phrases.py      sentences from attributes, English and Korean
    outcome.py      what became of one request               cost.py    prices, and the limit
    cache.py        captions.sqlite: every outcome, kept     spool.py   answers as they come
    ledger.py       what this user planned and signed
"""
