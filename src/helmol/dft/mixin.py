"""What helmol's additions to PySCF's SCF classes have in common: they can be copied and pickled."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from pyscf import lib

if TYPE_CHECKING:
    Scf: Any
else:
    Scf = object
"""What mix-ins inherit from: some class of PySCF, which has no types."""


class Mixin(Scf):
    """Mix-in for SCF classes (PySCF's own way of adding behaviour, see ``lib.set_class``)."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle and copy by the recipe of the class, which PySCF makes at run time and no module has."""
        return _blank, (_recipe(type(self)),), self.__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the attributes; PySCF's cache of integrals is empty again instead of missing."""
        super().__setstate__(state)
        self._opt = {None: None}


def _recipe(kind: type) -> Any:
    """Return a class, or what makes it anew: module, name and recipes of the bases."""
    if getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind:
        return kind
    return kind.__module__, kind.__name__, tuple(_recipe(base) for base in kind.__bases__)


def _class(recipe: Any) -> type:
    """Undo :func:`_recipe`."""
    if isinstance(recipe, type):
        return recipe
    module, name, bases = recipe
    made: type = lib.make_class(tuple(_class(base) for base in bases), name)
    made.__module__ = module
    return made


def _blank(recipe: Any) -> Any:
    """Return an object of a class without attributes."""
    kind: Any = _class(recipe)
    return kind.__new__(kind)
