"""``helmol models``: the trained models that come with helmol."""

from typing import Annotated, Any

import typer

from helmol.cli.options import JsonFile, Verbose
from helmol.cli.session import session

WORST = 10
"""Pairs of elements that are shown; the card has all."""

COLUMNS = ("name", "level of theory", "elements", "charges", "trained on", "H on new molecules / µEh", "MB")


def models(
    name: Annotated[str | None, typer.Argument(help="One of them, to see its card.")] = None,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Show the trained models that come with helmol, what they know and how far they are off."""
    with session("models", json_file=json_file, verbose=verbose) as s:
        from helmol.errors import InputError
        from helmol.shipped import shipped_card, shipped_names

        names = shipped_names()
        if name is not None and name not in names:
            raise InputError(f"no model {name!r} comes with helmol: there are {', '.join(names) or 'none'}")
        cards = {each: shipped_card(each) for each in ([name] if name else names)}
        s.table("models", COLUMNS, [_row(each, card) for each, card in cards.items()])
        for each, card in cards.items():
            s.say(f"{each}: {card['description']}")
            if name:
                s.table(f"{each}: errors on molecules it has not seen", *_errors(card))
                s.table(f"{each}: H by element / µEh", *_elements(card))
                if pairs := _pairs(card):
                    s.table(f"{each}: the ten worst pairs of elements, H / µEh", *pairs)
        s.result(cards)
        if names:
            s.next(f"helmol predict {name or names[0]} MOLECULES.xyz")


def _row(name: str, card: dict[str, Any]) -> list[object]:
    """Return a line of the table of all models."""
    errors = "; ".join(
        f"{test['name']} {test['model']['h_mae_uEh']:.0f} (H₀ alone {test['start']['h_mae_uEh']:,.0f})"
        for test in card["tests"]
    )
    charges = ", ".join(f"{int(q):+d}" if int(q) else "0" for q in card["charges"])
    elements, n, size = " ".join(card["elements"]), card["n_molecules"], card["bytes"] / 1e6
    return [name, card["level"], elements, charges, f"{n:,} molecules", errors, f"{size:.1f}"]


def _errors(card: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Return columns and lines of the errors of one model on its test sets, the cheap start beside them."""
    from helmol.evaluate.metrics import METRICS

    columns = ["error", *(f"{test['name']} ({test['n_molecules']})" for test in card["tests"])]
    keys = [key for key in METRICS if any(key in test["model"] for test in card["tests"])]
    cell = "{:.4g} ({:,.4g})"
    return columns, [
        [
            METRICS[key].heading,
            *(
                cell.format(test["model"][key], test["start"][key]) if key in test["start"] else "-"
                for test in card["tests"]
            ),
        ]
        for key in keys
    ]


def _elements(card: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Return columns and lines of the errors by element, with how many training molecules have it."""
    columns = ["element", "training molecules", *(test["name"] for test in card["tests"])]
    return columns, [
        [
            element,
            f"{n:,}",
            *(_rounded(test["by_element"].get(element)) for test in card["tests"]),
        ]
        for element, n in card["elements"].items()
    ]


def _pairs(card: dict[str, Any]) -> tuple[list[str], list[list[object]]] | None:
    """Return columns and lines of the pairs of elements with the largest errors, where the card has them."""
    found = [test.get("by_element_pair", {}) for test in card["tests"]]
    worst = sorted({pair for each in found for pair in each}, key=lambda p: -max(e.get(p, 0) for e in found))
    columns = ["blocks of two atoms", *(test["name"] for test in card["tests"])]
    rows = [[pair, *(_rounded(each.get(pair)) for each in found)] for pair in worst[:WORST]]
    return (columns, rows) if rows else None


def _rounded(value: float | None) -> str:
    """Return a number without digits behind the point, a dash for none."""
    return "-" if value is None else f"{value:,.0f}"
