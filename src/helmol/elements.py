"""Chemical symbols by atomic number.

Source: IUPAC periodic table (2016 names).
"""

from collections.abc import Iterable

from helmol.errors import InputError

SYMBOLS: tuple[str, ...] = tuple(
    (
        "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge "
        "As Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm "
        "Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U "
        "Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
    ).split()
)
_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS)}


def atomic_number(symbol: str) -> int:
    """Return the atomic number of a chemical symbol (any capitalisation).

    Raises:
        InputError: the symbol names no element.
    """
    number = _NUMBERS.get(symbol.strip().capitalize(), 0)
    if number == 0:
        raise InputError(f"unknown element {symbol!r}: expected a chemical symbol such as 'C' or 'Br'")
    return number


def some_symbols(numbers: Iterable[int], *, most: int = 10) -> str:
    """Return the symbols of elements; of many only the first and the last, and how many there are."""
    symbols = [SYMBOLS[number] for number in numbers]
    if len(symbols) > most:
        return f"{len(symbols)} elements {symbols[0]} to {symbols[-1]}"
    return " ".join(symbols) or "no elements"
