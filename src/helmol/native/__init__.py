"""The C kernels: compiled on demand, called in one way. Without a compiler nothing here is used.

Knows: the compiler, the cache of compiled libraries (:mod:`helmol.native.build`, without torch), how a
kernel is called on parts of its rows (:mod:`helmol.native.call`). Does not know: what a kernel is for.
Every kernel has a twin in torch or PySCF in the room that uses it.
"""
