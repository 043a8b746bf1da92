"""The read-only audit of a dataset (:func:`fashionrec.dataset.audit.run.audit_dataset`).

``listing`` lists photos and label files, ``inspect`` checks one photo and its labels (in a process
of its own), ``duplicates``, ``classes`` and ``disagree`` compare them, and ``page`` renders the
result.
"""
