"""The check of types and shapes at every call: beartype, where an ``int`` is a ``float``, as PEP 484 says."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
