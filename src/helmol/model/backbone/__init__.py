"""HELM's backbone: a batch in, node and directed-edge features out. It knows no orbitals.

Nodes ``[N, K, C]`` l-major in the laboratory frame; edges ``[2P, K, C]`` m-major in their own frames
for the whole network, since edge features feed no other edge and norms, gates and per-l linear maps
commute with the rotation. Edges read nodes; nodes never read edges.

Source: arXiv 2510.00224, section 3.
"""

from helmol.model.backbone.network import Backbone, NodeStates, run_block

__all__ = ["Backbone", "NodeStates", "run_block"]
