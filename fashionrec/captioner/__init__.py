"""Captions of garments: typed bilingual records, made by one of several captioners, paid for once.

::

    base.py         Captioner, the only captioner type that jobs, evaluation and commands know
    providers.py    captioners by name (config/captioners.py is the registry)
    openai/         a server with OpenAI's API              local/     the catalogue's own encoder
    job/            captions of a whole catalogue, and of photos
    vocabulary.py   the allowed values (configs/attributes.yaml)
    schema.py       the record, its JSON schema, its views
    phrases.py      sentences from attributes, English and Korean
    outcome.py      the result of one request               cost.py    prices, and the cost limit
    cache.py        captions.sqlite: every outcome          spool.py   answers as they arrive
    ledger.py       the plans and signatures of this user
"""
