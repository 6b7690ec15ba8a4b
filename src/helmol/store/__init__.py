"""Write and read labelled molecules without loss: one packed HDF5 file with splits by id, or several as one.

Knows: columns, transactions that survive ``kill -9``, checksums, and what a data card says of the
samples. Does not know: PySCF, torch, how a label was made.

A store is one HDF5 file. While an append is being committed there is a journal beside it
(``NAME.h5.journal``); one that a killed writer left is completed or dropped at the next opening.
"""

from helmol.store.groups import group_split
from helmol.store.joined import Stores
from helmol.store.merge import merge
from helmol.store.packed import Store
from helmol.store.split import random_split, split_indices

__all__ = ["Store", "Stores", "group_split", "merge", "random_split", "split_indices"]
