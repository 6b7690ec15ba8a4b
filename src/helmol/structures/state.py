"""Charge and spin as foreign files and objects state them, under every name in use.

Nothing that is stated is dropped: what cannot be read, and two statements that disagree, are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from helmol.arrays import Array, IntArray
from helmol.errors import InputError

CHARGE = frozenset("charge totalcharge totcharge netcharge molecularcharge chrg".split())
"""Names of the total charge, without case, underscores and the like."""

MULTIPLICITY = frozenset(
    "spin totalspin multiplicity spinmultiplicity mult molecularmultiplicity totalspinmultiplicity".split()
)
"""Names of the multiplicity 2S+1: ``spin`` as fairchem and ASE's users write it, ``total_spin`` as MACE does
(1 is a singlet there)."""

UNPAIRED = frozenset("uhf unpaired nunpaired unpairedelectrons nopen magmom".split())
"""Names of the number of unpaired electrons 2S: ``uhf`` of xTB, ``magmom`` (µB) of ASE."""

ELECTRONS = frozenset("nelec nelectron nelectrons electrons numberofelectrons numelectrons".split())
"""Names of the number of electrons, which says the charge in another way."""

LAST_WITHOUT_CORE = 18
"""Of elements after argon some electrons may be in a core potential, and not be counted."""

UNKNOWN_CHARGE = frozenset("q chg crg qtot qtotal totalq totq netq chargestate".split())
UNKNOWN_MULTIPLICITY = frozenset("multip gmult smult spinmult".split())
UNKNOWN_UNPAIRED = frozenset("2s twos nunp nopenshell".split())
"""Names that nobody documents; what they say must be what other names say."""

WORDS_OF_SPIN = dict(
    singlet=0, doublet=1, triplet=2, quartet=3, quintet=4, sextet=5, septet=6, octet=7
)  # fmt: skip
"""2S of what chemists call a spin state."""

MEANING = {"charge": "charge", "multiplicity": "multiplicity", "uhf": "number of unpaired electrons 2S"}

CONVENTION = {"charge": "", "multiplicity": "the multiplicity 2S+1", "unpaired": "2S, the unpaired electrons"}

OTHER_CHARGES = frozenset("nuclear core point background nuclei valence effective".split())
"""Words before ``charges`` that make them something else than parts of the total charge."""

SMALLEST = 1e-6
"""Arrays with smaller numbers only are as good as not there."""

ROUNDING, ROUNDING_PER_ATOM = 0.05, 0.005
"""How far per-atom numbers, often written with two decimals, may sum up beside a whole number."""

WORDS_AND_NUMBER = re.compile(r"([A-Za-z][A-Za-z_ -]*?)(?:\s*(:)\s*|\s+)([-+]?\d+)(?![\w.])")
"""A name in words, a colon perhaps, and a whole number."""


@dataclass(frozen=True)
class Statement:
    """Hold one number that says charge or spin.

    Attributes:
        kind: ``charge`` (e), ``multiplicity`` (2S+1) or ``unpaired`` (2S).
        name: what it is called where it stands.
        value: the number as it stands.
        rounding: 0 for a number of the whole molecule; of a sum over atoms what rounding can make.
    """

    kind: Literal["charge", "multiplicity", "unpaired"]
    name: str
    value: float
    rounding: float = 0.0

    @property
    def number(self) -> float:
        """Charge, or 2S."""
        return self.value - 1 if self.kind == "multiplicity" else self.value

    @property
    def is_whole(self) -> bool:
        """Whether the number is whole as far as rounding lets one see."""
        return abs(self.number - round(self.number)) <= self.rounding

    def __str__(self) -> str:
        meaning = CONVENTION[self.kind]
        return f"{self.name} = {self.value:g}" + (f" (read as {meaning})" if meaning else "")


def whole(kind: Literal["charge", "multiplicity", "unpaired"], name: str, value: Any) -> Statement:
    """Return the statement of a number that must be whole; for a spin it must make sense as well.

    Raises:
        InputError: it is no number, no whole number, or no possible spin.
    """
    single = value.reshape(-1)[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    try:
        if isinstance(single, (bool, np.bool_)):
            raise ValueError
        number = float(single)
        if not number.is_integer():
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} = {_short(value)}: expected a whole number") from None
    if kind == "multiplicity" and number < 1:
        raise InputError(f"{name} = {number:g}: expected the multiplicity 2S+1, at least 1 (uhf is 2S)")
    if kind == "unpaired" and number < 0:
        raise InputError(f"{name} = {number:g}: expected the number of unpaired electrons 2S")
    return Statement(kind, name, number)


def statements(atoms: Any, stated: Iterable[Statement] = ()) -> list[Statement]:
    """Return all that ``ase.Atoms`` state about their charge and spin, and what is ``stated`` elsewhere.

    Read are ``atoms.info`` (names in :data:`CHARGE`, :data:`MULTIPLICITY`, :data:`UNPAIRED`), initial charges
    and magnetic moments, whose sums ASE takes for charge and 2S, per-atom charges, and parameters and results
    of a calculator, as far as it is one that only keeps what was read from a file.

    Raises:
        InputError: a value that is no whole number, or a name that says charge or spin in a way not known.
    """
    found = list(_of_info(atoms.info))
    found += _of_calculator(atoms.calc)
    for name, values in _per_atom(atoms):
        found += _sum(name, values, len(atoms))
    found += stated
    _refuse_unknown(atoms.info, atoms.numbers, found)
    return found


def charge_and_spin(numbers: IntArray, found: Iterable[Statement]) -> tuple[int, int]:
    """Return charge and 2S; 0 for what nothing states.

    Raises:
        InputError: two statements disagree, a sum over atoms is no whole number, or the electrons do not go
            with the spin; the message names what was read and how.
    """
    found = list(found)
    charges = [s for s in found if s.kind == "charge"]
    spins = [s for s in found if s.kind != "charge"]
    charge, spin = _agreed(charges, "charge"), _agreed(spins, "multiplicity")
    electrons = int(np.sum(numbers)) - charge
    if spin <= electrons and (electrons - spin) % 2 == 0:
        return charge, spin
    says = " and ".join(str(s) for s in charges[:2]) or "no charge is stated, so it is 0"
    says += "; " + (" and ".join(str(s) for s in spins[:2]) or "no spin is stated, so it is a singlet")
    raise InputError(
        f"{electrons} electrons cannot have {spin} unpaired ({says}){_other_reading(spins, electrons)}"
    )


def statements_of_text(text: str) -> list[Statement]:
    """Return the charge and spin in a comment such as ``Total charge: -1 ; Unpaired electrons: 0``.

    Raises:
        InputError: a number follows a name without a colon, which may or may not be what it says, or the spin
            is stated by a word such as ``triplet``.
    """
    found = []
    for words, colon, number in WORDS_AND_NUMBER.findall(text):
        last = words.split()[-3:]
        names = [" ".join(last[k:]) for k in range(len(last))]
        name = next((n for n in names if is_state(n)), None)
        kind = None if name is None else _kind(plain_name(name))
        if name is None or kind is None:
            continue
        if not colon:
            raise InputError(f"the comment says '{name} {number}': write {_plain(kind)}=NUMBER")
        found.append(whole(kind, name, number))
    if not any(s.kind != "charge" for s in found):
        _refuse_words(text)
    return found


def _agreed(found: list[Statement], name: str) -> int:
    """Return the number that all statements of a kind give."""
    said = [s for s in found if not s.rounding]
    if not said:
        for statement in found:
            if not statement.is_whole:
                raise InputError(
                    f"{statement.name} sum up to {statement.value:.3f}, no whole number: state {name}="
                )
        said = found
    values = {round(s.number) for s in said}
    if len(values) > 1:
        raise InputError(f"{' and '.join(str(s) for s in said)} contradict each other")
    value = values.pop() if values else 0
    for statement in found:
        guess = statement.kind == "unpaired" and not statement.is_whole
        if not guess and abs(statement.number - value) > statement.rounding:
            raise InputError(f"{said[0]} and {statement} contradict each other")
    return value


def _other_reading(spins: list[Statement], electrons: int) -> str:
    """Return what to write if the spin was meant by the other convention, which then fits."""
    for statement in spins:
        value = round(statement.value)
        if statement.kind == "multiplicity" and value <= electrons:
            return f": if {value} unpaired electrons are meant write uhf={value}"
        if statement.kind == "unpaired" and 1 <= value <= electrons + 1:
            return f": if the multiplicity {value} is meant write multiplicity={value}"
    return ": give the right charge= or multiplicity="


def _of_info(info: Mapping[str, Any]) -> Iterator[Statement]:
    """Yield the statements of a header."""
    items = list(flat_items(info))
    for (key, value), (following, _) in zip(items, [*items[1:], ("", None)], strict=False):
        kind = _kind(plain_name(key))
        if kind is None:
            continue
        if value is True or value is np.True_:
            # A word of a comment, which is no statement unless a number comes next.
            if re.fullmatch(r"[-+]?\d+[,;.]?", following):
                raise InputError(f"the header says {key!r} and {following!r}: write {_plain(kind)}=NUMBER")
            continue
        yield whole(kind, key, value)


def _of_calculator(calculator: Any) -> Iterator[Statement]:
    """Yield the charge and multiplicity that a calculator was set up with, and the moment that it kept."""
    parameters = getattr(calculator, "parameters", None) or {}
    for key in ("charge", "mult", "multiplicity"):
        value = parameters.get(key) if isinstance(parameters, Mapping) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield whole("charge" if key == "charge" else "multiplicity", f"calculator's {key}", value)
    moment = kept_results(calculator).get("magmom")
    if moment is not None:
        yield Statement("unpaired", "magmom", abs(float(np.sum(moment))), ROUNDING)


def kept_results(calculator: Any) -> Mapping[str, Any]:
    """Return what a calculator keeps of a file; a live one's results are of what it was asked before."""
    if calculator is None:
        return {}
    from ase.calculators.singlepoint import SinglePointCalculator

    return calculator.results if isinstance(calculator, SinglePointCalculator) else {}


def _per_atom(atoms: Any) -> Iterator[tuple[str, Array]]:
    """Yield per-atom charges and moments by name, those of nothing but zeros left out."""
    arrays = {
        **atoms.arrays,
        **{k: v for k, v in kept_results(atoms.calc).items() if k in ("charges", "magmoms")},
    }
    for name, values in arrays.items():
        words = words_of(name)
        if words[-1] not in ("charge", "charges", "magmom", "magmoms"):
            continue
        values = np.asarray(values)
        if values.dtype.kind not in "fiu" or values.shape != (len(atoms),) or np.abs(values).max() < SMALLEST:
            continue
        if words[0] in OTHER_CHARGES:
            if words[0] in ("nuclear", "nuclei") and not np.array_equal(values, atoms.numbers):
                raise InputError(f"{name} are not the atomic numbers: helmol knows real nuclei only")
            continue
        yield name, values.astype(np.float64)


def _sum(name: str, values: Array, n_atoms: int) -> list[Statement]:
    """Return what per-atom numbers say about the whole."""
    rounding = ROUNDING + ROUNDING_PER_ATOM * n_atoms
    if "magmom" in name.lower():
        return [Statement("unpaired", f"{name} (their sum)", abs(float(values.sum())), rounding)]
    return [Statement("charge", f"{name} (their sum)", float(values.sum()), rounding)]


def _refuse_unknown(info: Mapping[str, Any], numbers: IntArray, found: list[Statement]) -> None:
    """Raise if a header has a charge or spin under an unknown name, or in words, that was not found."""
    charge = next((round(s.number) for s in found if s.kind == "charge" and s.is_whole), 0)
    spin = next((round(s.number) for s in found if s.kind != "charge" and s.is_whole), 0)
    known = {"charge": charge, "multiplicity": spin + 1, "uhf": spin}
    for key, value in flat_items(info):
        if isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d+\s*", value):
            value = int(value)
        if isinstance(value, (bool, np.bool_, str)):
            if not any(s.kind != "charge" for s in found):
                _refuse_words(value if isinstance(value, str) else key)
            continue
        if np.ndim(value) or not isinstance(value, (int, float, np.number)):
            continue
        n_electrons = int(np.sum(numbers)) - charge
        if plain_name(key) in ELECTRONS and value != n_electrons and np.max(numbers) <= LAST_WITHOUT_CORE:
            raise InputError(
                f"{key} = {_short(value)}, nuclei and charge {charge} make {n_electrons}: give the right "
                "charge="
            )
        plain = _meant(key)
        if plain is not None and value != known[plain]:
            raise InputError(
                f"{key} = {_short(value)} is a name that helmol does not know: if it is the {MEANING[plain]} "
                f"of the molecule write {plain}={_short(value)}, else delete it"
            )


def _refuse_words(text: str) -> None:
    """Raise if a header without a number for the spin has one word such as ``triplet``."""
    said = {word for word in re.findall(r"[a-z]+", text.lower()) if word in WORDS_OF_SPIN}
    if len(said) == 1 and (spin := WORDS_OF_SPIN[word := said.pop()]):
        raise InputError(f"the header says {word!r}: write multiplicity={spin + 1}, or delete the word")


def _meant(key: str) -> str | None:
    """Return what a name that is not known may stand for: ``charge``, ``multiplicity`` or ``uhf``."""
    name, words = plain_name(key), words_of(key)
    if _kind(name) is not None or words[0] in OTHER_CHARGES:
        return None
    if words[-1] in ("charge", "chg", "q") or name in UNKNOWN_CHARGE:
        return "charge"
    if words[-1] in ("spin", "multiplicity", "mult") or name in UNKNOWN_MULTIPLICITY:
        return "multiplicity"
    return "uhf" if name in UNKNOWN_UNPAIRED else None


def flat_items(info: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield keys and values; those of a database row lie a level deeper."""
    for key, value in info.items():
        if key in ("key_value_pairs", "data") and isinstance(value, Mapping):
            yield from ((str(k), v) for k, v in value.items())
        else:
            yield str(key), value


def is_state(key: str) -> bool:
    """Return whether a name is one of charge or spin."""
    return _kind(plain_name(key)) is not None


def _kind(word: str) -> Literal["charge", "multiplicity", "unpaired"] | None:
    """Return what a name stands for."""
    if word in CHARGE:
        return "charge"
    if word in MULTIPLICITY:
        return "multiplicity"
    return "unpaired" if word in UNPAIRED else None


def _plain(kind: str) -> str:
    return {"charge": "charge", "multiplicity": "multiplicity"}.get(kind, "uhf")


@lru_cache(maxsize=1024)
def plain_name(key: str) -> str:
    """Return a name without case, underscores, spaces."""
    return re.sub(r"[^a-z0-9]", "", key.lower())


@lru_cache(maxsize=1024)
def words_of(key: str) -> tuple[str, ...]:
    """Return the words of a name: ``mol_charge`` and ``molCharge`` have two."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", key)
    return tuple(word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word) or ("",)


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:40]}..."
