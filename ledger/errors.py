"""Every error that Ledger raises on purpose; the message says what happened and what to do."""


class LedgerError(Exception):
    """The base of all of them."""


class EmbeddedPostgresError(LedgerError):
    """The embedded PostgreSQL could not be started."""


class SettingsError(LedgerError):
    """A setting is missing, unknown or has a bad value."""


class DatabaseUnavailableError(LedgerError):
    """The database cannot be reached or does not answer in time."""


class SchemaError(LedgerError):
    """The database's schema is not the one that this version of Ledger works with."""


class AppendError(LedgerError):
    """A delivery could not be made durable, so it must not be acknowledged."""


class FoldVersionError(LedgerError):
    """The state was made by another version of the fold, and must not be mixed with this one's."""


class StateError(LedgerError):
    """The state's tables are not what they must be; a rebuild makes them anew."""


class CheckpointError(LedgerError):
    """The checkpoint is not where this batch began: somebody else moved it."""


class RebuildError(LedgerError):
    """A rebuild could not be finished; the live state is untouched."""


class ImportFileError(LedgerError):
    """A file to import cannot be read."""


class DecisionError(LedgerError):
    """An operator's decision cannot be taken now; nothing was recorded."""


class BusyError(LedgerError):
    """Too many calls of one kind are being answered; the caller should try again."""


class QuestionError(LedgerError):
    """A question cannot be answered as it was asked."""


class UnknownSubjectError(LedgerError):
    """What an operator decides about does not exist; the message says what does."""


class SimulationError(LedgerError):
    """The simulation could not go on; the message says why and what to do."""


class SimulationOptionError(SimulationError):
    """An option has a value that makes no sense; the message says what it takes.

    `option` is the name of the field of `SimulationOptions`.
    """

    def __init__(self, option: str, takes: str) -> None:
        super().__init__(f"{option} {takes}")
        self.option = option
        self.takes = takes
