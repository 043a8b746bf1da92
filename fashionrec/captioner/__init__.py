"""Captions of garments: a typed bilingual record, made by OpenAI or by the catalogue's own encoder, and paid for once.

::

    vocabulary.py   the allowed values (configs/attributes.yaml)      remote.py   the only place that talks to OpenAI
    schema.py       the record, its JSON schema, its views            wire.py     requests and answers, as plain JSON
    phrases.py      sentences from attributes, English and Korean     local.py    zero-shot attributes, nothing is sent
    outcome.py      what became of one request                        cache.py    captions.sqlite: every outcome, kept
"""
