"""From molecules to tensors and back: pairs, edge frames, matrix blocks grouped by shell signature.

Knows: what moves between atoms and edges, irreps of blocks, dense matrices made of them. Does not know:
weights, what a matrix means.

Everything after this room is torch. Molecules of any size stand one after the other (no padding);
the pairs i < j inside the cutoff come once, the directed edges are ``[i→j for all pairs]`` followed
by ``[j→i for all pairs]``. Positions and targets stay float64 here; the network casts once.
"""

from helmol.graph.batch import Batch, Bucket, Item, collate, prepare
from helmol.graph.frames import EdgeGeometry, edge_geometry
from helmol.graph.layout import flip_signs, m_major
from helmol.graph.many import prepare_many
from helmol.graph.pairs import Pairs

__all__ = [
    "Batch",
    "Bucket",
    "EdgeGeometry",
    "Item",
    "Pairs",
    "collate",
    "edge_geometry",
    "flip_signs",
    "m_major",
    "prepare",
    "prepare_many",
]
