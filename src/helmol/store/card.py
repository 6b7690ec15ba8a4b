"""The data card: what is in a store, whether it is whole, and what it asks of a training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helmol.arrays import IntArray
from helmol.basis import LETTERS
from helmol.elements import SYMBOLS
from helmol.errors import InputError, StoreError
from helmol.files import beside, write_json, write_text
from helmol.markdown import table
from helmol.progress import Progress
from helmol.store.columns import REFERENCE
from helmol.store.oddities import State, scf_state
from helmol.store.packed import Store
from helmol.store.statistics import FockStatistics, energy_outliers, equal_geometries

MOST_SAMPLES = 1000
"""Statistics of matrices are taken over at most this many samples, drawn with a fixed seed."""

NO_REFERENCES = "none: 'helmol references STORE --add minao-lite --out NEW' adds cheap Fock matrices"
"""They are the baselines of an evaluation and the starting points of delta targets."""

FOCK_COLUMNS = ("n", "mean_Eh", "std_Eh", "rms_Eh")
LABELS = ("energy", "forces", "dipole", "overlap", "density")


def describe(store: Store) -> dict[str, Any]:
    """Read a whole store, check it, and return its card.

    Damaged samples are named under ``damaged`` and left out of everything else that needs them.

    Returns:
        A JSON-able dictionary; energies in Eh, lengths in bohr, as the keys say.
    """
    with Progress("Checking samples", total=len(store), unit="samples") as bar:
        damaged = store.verify(progress=bar)
    rows = _whole_rows(store)
    card: dict[str, Any] = {
        "store": str(store.path),
        "size_MB": store.path.stat().st_size / 1e6,
        "n_molecules": len(store),
        "content_hash": store.content_hash,
        "content_hash_ok": not damaged,
        "damaged": damaged,
        "level": store.level.to_json(),
        "level_label": store.level.label,
        "ao_order": store.metadata["ao_order"],
        "units": store.metadata["units"],
        "code": store.metadata["code"],
        "splits": {name: len(ids) for name, ids in store.splits.items()},
        "references": list(store.references),
        "labels": {name: int(store.has(name).sum()) for name in [*LABELS, *_reference_columns(store)]},
    }
    return {**card, **_composition(store, rows), **_energies(store, rows), **_matrices(store, rows)}


def _reference_columns(store: Store) -> list[str]:
    return [f"{REFERENCE}{name}" for name in store.references]


def _whole_rows(store: Store) -> list[int]:
    """Return the rows whose molecule can be read."""
    rows = []
    for row in range(len(store)):
        try:
            store.molecule(row)
        except StoreError:
            continue
        rows.append(row)
    return rows


def _composition(store: Store, rows: Sequence[int]) -> dict[str, Any]:
    """Return elements, sizes, charges, spins, equal geometries and the memory they ask for."""
    molecules = [(store.ids[row], store.molecule(row)) for row in rows]
    atoms: Counter[int] = Counter()
    holders: Counter[int] = Counter()
    for _, molecule in molecules:
        counts = Counter(molecule.numbers.tolist())
        atoms.update(counts)
        holders.update(counts.keys())
    n_ao = np.array([store.basis.offsets(m.numbers)[-1] for _, m in molecules], dtype=np.int64)
    n_edges = np.array([m.n_edges for _, m in molecules], dtype=np.int64)
    return {
        "elements": {
            SYMBOLS[z]: {
                "n_atoms": atoms[z],
                "n_molecules": holders[z],
                "shells": _shells(entry.shells),
                "core_electrons": entry.core_electrons,
                "basis_hash": entry.hash,
            }
            for z, entry in store.basis.elements.items()
        },
        "n_atoms": _range(np.array([m.n_atoms for _, m in molecules])),
        "n_ao": _range(n_ao),
        "n_edges": _range(n_edges),
        "charges": dict(sorted(Counter(m.charge for _, m in molecules).items())),
        "spins": dict(sorted(Counter(m.spin for _, m in molecules).items())),
        "formulas": dict(Counter(m.formula for _, m in molecules).most_common(20)),
        "duplicates": equal_geometries(molecules),
        **_memory(store, n_ao, n_edges),
    }


def _memory(store: Store, n_ao: IntArray, n_edges: IntArray) -> dict[str, float]:
    """Estimate what a training holds: its labels, and the edge features of the largest molecule.

    Edge features: directed edges × (2 lmax + 1)² irrep components × 64 channels × 4 bytes, where the
    blocks of a basis with largest l reach 2 l. Per layer, and without a cutoff.
    """
    components = (2 * store.basis.lmax + 1) ** 2 if store.basis.elements else 0
    largest = int(n_edges.max(initial=0))
    return {
        "memory_labels_float32_MB": float((n_ao**2).sum()) * 4 / 1e6,
        "memory_edge_features_per_layer_MB": largest * components * 64 * 4 / 1e6,
    }


def _energies(store: Store, rows: Sequence[int]) -> dict[str, Any]:
    """Return the comparison of energies with a sum over atoms."""
    with_energy = [row for row in rows if store.has("energy")[row]]
    good: list[tuple[int, float]] = []
    for row in with_energy:
        try:
            good.append((row, float(store.values("energy", row)[0])))
        except StoreError:
            continue
    ids, numbers = [store.ids[row] for row, _ in good], [store.numbers(row) for row, _ in good]
    return {"energy_fit": energy_outliers(ids, numbers, np.array([energy for _, energy in good]))}


def drawn_rows(rows: Sequence[int], n: int) -> list[int]:
    """Return at most ``n`` of the rows, always the same ones."""
    if len(rows) <= n:
        return list(rows)
    return sorted(np.random.default_rng(0).choice(np.asarray(rows), size=n, replace=False).tolist())


def _matrices(store: Store, rows: Sequence[int]) -> dict[str, Any]:
    """Return statistics of Fock elements and gaps."""
    statistics, chosen = FockStatistics(store.basis), drawn_rows(rows, MOST_SAMPLES)
    states: dict[str, State] = {}
    unsolved: list[dict[str, str]] = []
    reference_error: dict[str, list[float]] = {name: [] for name in store.references}
    n_used = 0
    with Progress("Reading matrices", total=len(chosen), unit="samples") as bar:
        for row in chosen:
            bar.advance()
            try:
                sample = store[row]
            except StoreError:
                continue
            n_used += 1
            statistics.add(sample)
            try:
                if (state := scf_state(sample, store.basis)) is not None:
                    states[sample.id] = state
            except InputError as error:
                unsolved.append({"id": sample.id, "text": str(error)})
            for name, matrix in sample.matrices.references.items():
                reference_error[name].append(float(np.abs(sample.matrices.fock - matrix).mean()))
    known = [state.gap for state in states.values() if state.gap is not None]
    contaminations = [s.contamination for s in states.values() if s.contamination is not None]
    return {
        "n_in_fock_statistics": n_used,
        "fock": statistics.result(),
        "reference_mae_Eh": {n: float(np.mean(v)) if v else None for n, v in reference_error.items()},
        "n_gaps": len(known),
        "n_negative_gaps": sum(value < 0 for value in known),
        "gap_min_Eh": min(known, default=None),
        "gap_mean_Eh": float(np.mean(known)) if known else None,
        "gaps_Eh": known,
        "spin_contamination_max": max(contaminations, default=None),
        "scf_oddities": unsolved
        + [{"id": id, "text": text} for id, state in states.items() for text in state.oddities],
    }


def _shells(shells: Sequence[int]) -> str:
    """Return shells in brief, e.g. ``3s2p1d``."""
    return "".join(f"{count}{LETTERS[l]}" for l, count in sorted(Counter(shells).items()))


def _range(values: IntArray) -> dict[str, float] | None:
    """Return minimum, mean, maximum; ``None`` of nothing."""
    if not len(values):
        return None
    return {"min": int(values.min()), "mean": float(values.mean()), "max": int(values.max())}


def tables(card: dict[str, Any]) -> list[tuple[str, list[str], list[list[object]]]]:
    """Return the card as tables ``(title, columns, rows)`` for a terminal or a page."""
    with_fock = bool(card["fock"]["diagonal"])
    whole = "verified" if card["content_hash_ok"] else "DAMAGED"
    facts: list[list[object]] = [
        ["n_molecules", card["n_molecules"]],
        ["size_MB", card["size_MB"]],
        ["level_label", card["level_label"]],
        ["xc_resolved", card["level"]["xc_resolved"]],
        *([["auxbasis", card["level"].get("auxbasis", "not written down")]] * card["level"]["density_fit"]),
        ["code", f"{card['level']['code']}, {card['code']}"],
        *_rows({key: _range_text(card[key]) for key in ("n_atoms", "n_ao", "n_edges")}),
        *_rows({key: _counts(card[key]) for key in ("formulas", "charges", "spins", "splits", "labels")}),
        ["content_hash", f"{card['content_hash'][:16]} ({whole})"],
        ["damaged", len(card["damaged"])],
        *_rows({"references": ", ".join(card["references"]) or NO_REFERENCES} if with_fock else {}),
        ["duplicates", sum(len(group) - 1 for group in card["duplicates"])],
        ["energy_fit", _energy_text(card["energy_fit"])],
        ["n_negative_gaps", f"{card['n_negative_gaps']} of {card['n_gaps']} checked"],
        *[[key, card[key]] for key in ("gap_min_Eh", "gap_mean_Eh") if card["n_gaps"]],
        *[[key, card[key]] for key in ("spin_contamination_max",) if card[key] is not None],
        ["scf_oddities", len(card["scf_oddities"])],
        *[[f"reference_mae_Eh {n}", e] for n, e in card["reference_mae_Eh"].items() if e is not None],
        *[[key, card[key]] for key in card if key.startswith("memory_")],
    ]
    elements: list[list[object]] = [
        [symbol, e["n_atoms"], e["n_molecules"], e["shells"], e["core_electrons"]]
        for symbol, e in card["elements"].items()
    ]
    found = [
        (f"Store {card['store']}", ["", "value"], facts),
        ("Elements", ["element", "n_atoms", "n_molecules", "shells", "core_electrons"], elements),
    ]
    for kind, title in (
        ("diagonal", "Diagonal elements of F"),
        ("onsite", "F between two orbitals of one atom"),
        ("offsite", "F between two atoms"),
    ):
        rows: list[list[object]] = [
            [k, *(v[name] for name in FOCK_COLUMNS)] for k, v in card["fock"][kind].items()
        ]
        if rows:
            found.append((title, ["shells", *FOCK_COLUMNS], rows))
    return found


def _rows(facts: dict[str, object]) -> list[list[object]]:
    return [[key, value] for key, value in facts.items()]


def _range_text(span: dict[str, float] | None) -> str:
    return "none" if span is None else f"{span['min']} to {span['max']}, mean {span['mean']:.4g}"


def _counts(counts: dict[Any, int]) -> str:
    return ", ".join(f"{key} ({count})" for key, count in counts.items()) or "none"


def _energy_text(fit: dict[str, Any]) -> str:
    if "skipped" in fit:
        return f"not compared: {fit['skipped']}"
    return f"{len(fit['outliers'])} outliers, std {fit['std_Eh']:.3g} Eh around a sum over atoms"


def problems(card: dict[str, Any]) -> list[str]:
    """Return one line for everything in a card that somebody should look at."""
    lines = list(card["damaged"])
    lines += [f"equal geometries: {', '.join(group)}" for group in card["duplicates"]]
    lines += [
        f"energy of {o['id']!r} is {o['residual_Eh']:+.4f} Eh off a sum over atoms"
        for o in card["energy_fit"].get("outliers", [])
    ]
    lines += [f"{oddity['id']!r}: {oddity['text']}" for oddity in card["scf_oddities"]]
    return lines


CARD, SPLITS = ".card.md", ".splits.json"
"""What follows the name of a store in the names of the files that describe it."""


def write_beside(store: Store) -> None:
    """Write the data card and the splits beside a store, for people and for other programs."""
    if len(store):
        write_text(beside(store.path, CARD), markdown(describe(store)))
    write_json(beside(store.path, SPLITS), {name: list(ids) for name, ids in store.splits.items()})


def remove_beside(path: Path) -> None:
    """Remove what describes a store that is about to change."""
    for suffix in (CARD, SPLITS):
        beside(path, suffix).unlink(missing_ok=True)


def write_card(store: Store, folder: Path) -> dict[str, Any]:
    """Write ``card.md`` and its figures into a folder.

    Returns:
        The card, see :func:`describe`.
    """
    from helmol.store import plots  # matplotlib is slow to import and not needed for the numbers

    card = describe(store)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.md").unlink(missing_ok=True)
    figures = plots.draw(store, folder, card)
    write_text(folder / "card.md", markdown(card, figures=[figure.name for figure in figures]))
    return card


def markdown(card: dict[str, Any], *, figures: Sequence[str] = ()) -> str:
    """Return a card as a Markdown page."""
    lines = [f"# Data card: {Path(card['store']).name}", ""]
    for title, columns, rows in tables(card):
        lines += [f"## {title}", "", table(columns, rows), ""]
    lines += ["## To look at", "", *([f"* {line}" for line in problems(card)] or ["Nothing."]), ""]
    for name in figures:
        lines += [f"![{name}]({name})", ""]
    return "\n".join(lines)
