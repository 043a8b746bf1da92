"""What is in a dataset and what is wrong with it: :func:`fashionrec.dataset.audit.run.audit_dataset` looks, changes nothing.

``listing`` says which photos and label files there are, ``inspect`` looks at one photo and its labels (in a process of its own),
``duplicates``, ``classes`` and ``disagree`` compare them; ``page`` shows it all.
"""
