"""The processes that train one model together: who they are, what they add up, how they end together.

All that helmol knows of ``torch.distributed`` stands here. :class:`Ranks` is one process alone, in which
everything is what it was; :class:`Group` are several that a launcher started (``torchrun``, ``helmol train
--processes``, ``srun`` with torch's variables). Whoever calls does not ask which.

Batches are shared out, and what is computed of a share is *summed*: numerators and denominators of the loss,
then gradients, in one piece after the gradient is complete. ``DistributedDataParallel`` would send gradients
while they are made, and for that it wants the same parameters to have one in every process, in every step
(batches without pairs, losses of diagonal blocks and idle processes have not), and an error inside the
gradient of one process (memory!) leaves the others waiting; for networks of this size the time is the same.
"""

from __future__ import annotations

import heapq
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from helmol.devices import resolve_device
from helmol.errors import ConfigError, ElsewhereError, LostError, StoppedError, TrainingError

T = TypeVar("T")

VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher tells each process besides ``WORLD_SIZE``."""
PATIENCE = timedelta(days=1)
"""Of a process that waits for others: the first one fits closed forms and writes results alone. Whoever waits
for one that has ended notices at once."""
TO_MEET = timedelta(minutes=15)
"""Time for all processes to start."""
FAILED = "helmol/failed"
"""Note in which the processes count themselves when they fail."""
SECONDS_FOR_NOTES = 2.0
"""For the first process, which keeps the notes if no launcher does, to wait for the others' when it fails."""

log = logging.getLogger("helmol.train")


class Ranks:
    """One process alone; what several do differently is in :class:`Group`.

    Attributes:
        rank: number of this process.
        size: number of processes.
    """

    rank, size = 0, 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    @property
    def left_alone(self) -> bool:
        """Whether the launcher has gone, so that nobody would notice if a process ended."""
        return False

    def device(self, name: str) -> torch.device:
        """Return the device that this process computes on: ``auto``, ``cpu``, ``cuda``.

        Raises:
            ConfigError: it is not there.
        """
        return torch.device(resolve_device(name))

    def gather(self, value: T) -> list[T]:
        """Return what every process has, in the order of their numbers."""
        return [value]

    def from_first(self, make: Callable[[], T]) -> T:
        """Let the first process make something, and return it in all."""
        return make()

    def add(self, tensor: Tensor) -> None:
        """Sum a tensor over all processes, in place."""

    def exchange(self, own: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Return the flat tensors of all processes, in the order of their numbers.

        Args:
            own: this one's.
            sizes: elements of all.
        """
        return [own]

    def numbers(self, *values: float) -> Tensor:
        """Return what every process has to say in numbers, ``[size, n]``, float64 on the CPU."""
        table = torch.zeros(self.size, len(values), dtype=torch.float64)
        table[self.rank] = torch.tensor(values, dtype=torch.float64)
        self.add(table)
        return table

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set in some process."""
        return flag

    def total(self, *sums: Tensor) -> tuple[Tensor, ...]:
        """Return sums over all processes, differentiable in one's own (:data:`helmol.model.losses.Total`)."""
        return sums

    def nothing(self, *sums: Tensor) -> tuple[Tensor, ...]:
        """Return the sums of the other processes; of one's own a gradient of zero is left."""
        return self.total(*(0 * value for value in sums))

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum gradients over all processes; who has none counts as zero, and what none has stays without."""

    def shares(self, costs: Sequence[float]) -> list[list[int]]:
        """Divide things among the processes, see :func:`shares`."""
        return shares(costs, self.size)


ALONE = Ranks()


class Group(Ranks):
    """This process and the others that a launcher started with it."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._parent = os.getppid() if by_launcher() else None

    @property
    def left_alone(self) -> bool:
        """See :attr:`Ranks.left_alone`."""
        return self._parent is not None and os.getppid() != self._parent

    def device(self, name: str) -> torch.device:
        """Return the device; the GPU of a process is that of its number on its machine."""
        device = torch.device(resolve_device(name))
        if device.type != "cuda":
            return device
        local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= there:
            raise ConfigError(
                f"process {self.rank} is number {local} on {socket.gethostname()}, which has {there} GPUs: "
                "start as many processes per machine, or use --device cpu"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
        return device

    def gather(self, value: T) -> list[T]:
        """See :meth:`Ranks.gather`; values travel pickled."""
        found: list[Any] = [None] * self.size
        with _heard():
            dist.all_gather_object(found, value)
        return found

    def from_first(self, make: Callable[[], T]) -> T:
        """See :meth:`Ranks.from_first`; it travels pickled."""
        holder: list[Any] = [make() if self.first else None]
        with _heard():
            dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def add(self, tensor: Tensor) -> None:
        """See :meth:`Ranks.add`."""
        with _heard():
            dist.all_reduce(tensor)

    def exchange(self, own: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """See :meth:`Ranks.exchange`; they are filled up to the size of the largest."""
        padded = own.new_zeros(max(sizes))
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in sizes]
        with _heard():
            dist.all_gather(found, padded)
        return [part[:n] for part, n in zip(found, sizes, strict=True)]

    def any(self, flag: bool) -> bool:
        """See :meth:`Ranks.any`."""
        return bool(self.numbers(float(flag)).any())

    def total(self, *sums: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`Ranks.total`; added in float64."""
        whole = _Total.apply(torch.stack([value.to(torch.float64) for value in sums]), self)
        return tuple(part.to(value.dtype) for part, value in zip(whole.unbind(), sums, strict=True))

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """See :meth:`Ranks.add_gradients`."""
        there = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32)
        self.add(there)
        some = [p for p, n in zip(parameters, there.tolist(), strict=True) if n]
        if not some:
            return
        whole = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in some])
        self.add(whole)
        for parameter, part in zip(some, whole.split([p.numel() for p in some]), strict=True):
            parameter.grad = part.view_as(parameter)


class _Total(torch.autograd.Function):
    """Sum over processes. Gradients are summed too, later: the one of this sum is passed on as it is."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, ranks: Ranks) -> Tensor:
        """Return the sum."""
        whole = own.clone()
        ranks.add(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient."""
        return gradients[0], None


def shares(costs: Sequence[float], n: int) -> list[list[int]]:
    """Divide things among ``n`` so that the sums of their costs are nearly alike.

    The dearest come first, each to whoever has least (Graham 1969: at most a third more than the best
    division).

    Returns:
        ``n`` increasing lists of indices; some are empty if there are fewer things.
    """
    found: list[list[int]] = [[] for _ in range(n)]
    loads = [(0.0, k) for k in range(n)]
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, k = loads[0]
        found[k].append(index)
        heapq.heapreplace(loads, (load + costs[index], k))
    return [sorted(some) for some in found]


def by_launcher() -> bool:
    """Return whether torch's launcher watches over this process: it says itself if one is killed."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def n_processes() -> int:
    """Return how many processes a launcher has started, this one included.

    Raises:
        ConfigError: ``WORLD_SIZE`` is no number.
    """
    text = os.environ.get("WORLD_SIZE", "").strip() or "1"
    try:
        return max(int(text), 1)
    except ValueError:
        raise ConfigError(f"WORLD_SIZE is {text!r}: a launcher sets it to the number of processes") from None


@contextmanager
def joined() -> Iterator[Ranks]:
    """Yield the processes of this run, which go on when all are there.

    All but the first are silent inside. Whatever exception ends one of them ends all: the first that fails
    raises it, and the others, which may fail of the same or because one has gone, :class:`ElsewhereError`.

    Raises:
        ConfigError: a launcher's variables are incomplete.
        LostError: a process has ended without a word.
    """
    if dist.is_available() and dist.is_initialized():
        # Whoever did that looks after the end as well.
        yield Group() if dist.get_world_size() > 1 else ALONE
        return
    size = n_processes()
    if size == 1:
        yield ALONE
        return
    store = _meet(size)
    ranks = Group()
    failed = False
    try:
        with _silent(not ranks.first):
            yield ranks
    except BaseException as error:
        failed = True
        if _others_say(error, ranks, store):
            raise ElsewhereError("another process of this run has failed and says why") from error
        raise
    finally:
        dist.destroy_process_group()
        if failed and ranks.first and not by_launcher():
            _keep_notes(store, size)


def _meet(size: int) -> Store:
    """Form the group and return the place where its processes leave notes."""
    if missing := [name for name in VARIABLES if not os.environ.get(name)]:
        raise ConfigError(
            f"this is one of {size} processes (WORLD_SIZE), but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set: start them with torchrun, or let "
            "'helmol train --processes N' do it"
        )
    try:
        store, rank, size = next(rendezvous("env://", timeout=TO_MEET))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=max(PATIENCE, TO_MEET)
        )
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise TrainingError(
            f"the {size} processes of this run have not met at {where}: {' '.join(str(error).split())[:300]}"
        ) from error
    return store


def _keep_notes(store: Store, size: int) -> None:
    """Wait until the others, which now fail as well, have seen that one has said why."""
    end = time.monotonic() + SECONDS_FOR_NOTES
    while store.add(FAILED, 0) < size and time.monotonic() < end:
        time.sleep(0.02)


def _others_say(error: BaseException, ranks: Group, store: Store) -> bool:
    """Return whether another process, or the launcher, says why the run ends."""
    lost = isinstance(error, LostError)
    if lost and by_launcher():
        return True
    try:
        return bool(store.add(FAILED, 1) > 1)
    except RuntimeError:
        # Who kept the notes has gone: the launcher, or the first process.
        if isinstance(error, (KeyboardInterrupt, StoppedError)):
            return not ranks.first
        return lost and ranks.rank != 1


@contextmanager
def _silent(wanted: bool) -> Iterator[None]:
    """Drop log lines and progress bars."""
    if not wanted:
        yield
        return
    root = logging.getLogger("helmol")
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
            yield
    finally:
        root.setLevel(level)


@contextmanager
def _heard() -> Iterator[None]:
    """Say what it means that a collective operation fails."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise LostError(
            "a process of this run has ended without a word (killed, or out of memory?): start again, the "
            f"run goes on from its last checkpoint ({' '.join(str(error).split())[:200]})"
        ) from error


def spread(values: Iterable[T], ranks: Ranks) -> list[T]:
    """Return this process's share of things of which every n-th goes to one of n processes."""
    return list(values)[ranks.rank :: ranks.size]


def collected(parts: Sequence[Sequence[T]]) -> list[T]:
    """Return in the old order what :func:`spread` has given out and every process has worked on."""
    found = [None] * sum(map(len, parts))
    for rank, part in enumerate(parts):
        found[rank :: len(parts)] = part  # type: ignore[assignment]
    return found  # type: ignore[return-value]
