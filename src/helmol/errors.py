"""Exceptions that a user may meet; each message says what was seen, what was wanted, what to do.

The command line prints such a message as one line and exits with a non-zero code; anything else
that escapes is a fault of helmol and its traceback goes into the log.
"""


class HelmolError(Exception):
    """Base of every error that helmol raises on purpose."""


class InputError(HelmolError):
    """A molecule, file or argument that cannot be used as it stands."""


class ConfigError(HelmolError):
    """A configuration key or value that is unknown or out of range."""


class DomainError(HelmolError):
    """A model asked about an element, basis, functional, charge or spin it has not learnt."""


class StoreError(HelmolError):
    """A store that is missing, damaged, or of another schema."""


class BusyError(HelmolError):
    """A file or folder that another process is writing; the message says which process."""


class ConvergenceError(HelmolError):
    """An electronic-structure calculation whose result must not be used as a label."""


class TrainingError(HelmolError):
    """A training run that cannot go on: it diverged, or its checkpoint cannot be written or read."""


class DivergedError(TrainingError):
    """A training run whose loss stays non-finite: its settings are at fault, not the machine."""


class LostError(TrainingError):
    """A training in several processes of which one has ended without a word."""


class ElsewhereError(TrainingError):
    """Another process of the same run has failed and says why; this one has nothing to add."""


class StoppedError(HelmolError):
    """Work that a signal (SIGTERM, SIGUSR1) has ended in good order: the same command goes on with it."""
