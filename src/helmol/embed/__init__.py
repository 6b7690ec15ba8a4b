"""What a network has learnt about atoms: their features in a plane, and how well environments separate.

Knows: node features, principal components, UMAP, the scores. Does not know: Fock matrices, errors of
predictions, training.
"""

from helmol.embed.embedding import Embedding, embed, plane, separation, umap_plane
from helmol.embed.run import embed_runs

__all__ = ["Embedding", "embed", "embed_runs", "plane", "separation", "umap_plane"]
