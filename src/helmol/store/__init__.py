"""Labelled molecules in one packed HDF5 file: written and read without loss, split by id, described.

Knows: columns, transactions that survive ``kill -9``, checksums, the data card. Does not know:
PySCF, torch, how a label was made.

A store is one HDF5 file. While an append is being committed there is a journal beside it
(``NAME.h5.journal``); one that a killed writer left is completed or dropped at the next opening.
"""

from helmol.store.groups import group_split
from helmol.store.joined import Stores
from helmol.store.merge import merge
from helmol.store.packed import Store
from helmol.store.split import random_split, split_indices

__all__ = ["Store", "Stores", "group_split", "merge", "random_split", "split_indices"]
