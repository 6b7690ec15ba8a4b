"""``helmol inspect STORE``: the card of a data set."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import JsonFile, Out, Verbose
from helmol.cli.session import session


def inspect(
    store: Annotated[Path, typer.Argument(help="Store to look at (.h5).")],
    out: Out = None,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Show what is in a store and whether it is whole; --out writes card.md with figures."""
    with session("inspect", json_file=json_file, verbose=verbose) as s:
        from helmol.errors import StoreError
        from helmol.store import Store
        from helmol.store.card import describe, problems, tables, write_card

        with Store.open(store) as opened:
            card = describe(opened) if out is None else write_card(opened, out)
        for title, columns, rows in tables(card):
            s.table(title, columns, rows)
        for line in problems(card):
            s.say(f"look at: {line}")
        if out is not None:
            s.say(f"card with figures: {out / 'card.md'}")
        s.result(card)
        if card["damaged"]:
            raise StoreError(
                f"store {store} has {len(card['damaged'])} damaged samples: copy it again or make them anew"
            )
        s.next(f"helmol train CONFIG --set data={store}")
