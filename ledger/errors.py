"""Every error that Ledger raises on purpose; the message says what happened and what to do."""


class LedgerError(Exception):
    """The base of all errors below."""


class EmbeddedPostgresError(LedgerError):
    """The embedded PostgreSQL could not be started."""


class SettingsError(LedgerError):
    """A setting is missing, unknown or has a bad value."""


class DatabaseUnavailableError(LedgerError):
    """The database cannot be reached or does not answer in time."""


class ReplicaUnavailableError(DatabaseUnavailableError):
    """The replica that answers the API's reads cannot be reached, is behind, or gave a query up."""


class PoolerError(LedgerError):
    """A connection pooler shares our sessions with its other clients."""


class SchemaError(LedgerError):
    """The database's schema is not the one that this version of Ledger works with."""


class AppendError(LedgerError):
    """A delivery could not be made durable, so it must not be acknowledged."""


class ContentError(AppendError):
    """The database does not take a delivery because of its content."""


class SpoolError(LedgerError):
    """A delivery cannot be written to the spool."""


class FoldVersionError(LedgerError):
    """The state was made by another version of the fold, and the two must not be mixed."""


class StateError(LedgerError):
    """The state's tables are missing or inconsistent; a rebuild replaces them."""


class BillTooLargeError(LedgerError):
    """A bill's events say more than one process can hold; it has no state."""


class CheckpointError(LedgerError):
    """The checkpoint is not where this batch began: another process moved it."""


class RebuildError(LedgerError):
    """A rebuild could not be finished; the live state is untouched."""


class SealError(LedgerError):
    """A seal, a key of seals or a proof cannot be made or read."""


class TimeStampError(SealError):
    """A time stamping authority gave no time stamp of a checkpoint that can be used."""


class ForkError(SealError):
    """A checkpoint was published of a log that continued otherwise than this one."""


class ArchiveError(LedgerError):
    """An archive cannot be written or read, or is not of this log."""


class ArchiveDamageError(ArchiveError):
    """An archive does not hold what was sealed; the message names the first position."""


class ImportFileError(LedgerError):
    """A file to import cannot be read."""


class DecisionError(LedgerError):
    """An operator's decision cannot be recorded now; nothing was recorded."""


class BusyError(LedgerError):
    """Too many calls of one kind are being answered; the caller should try again."""


class QuestionError(LedgerError):
    """A query or a decision has a value that is out of range or contradicts another."""


class UnknownSubjectError(LedgerError):
    """The named bill, event, request or window does not exist; the message lists what does."""


class UnauthenticatedError(LedgerError):
    """Nobody is known by the key that was presented."""


class ForbiddenError(LedgerError):
    """The caller is known and may not do this."""


class FlabsError(LedgerError):
    """Flabs could not be asked. `brief` is the message without a word of what Flabs answered."""

    def __init__(self, message: str, *, brief: str | None = None) -> None:
        super().__init__(message)
        self.brief = message if brief is None else brief


class FlabsUnavailableError(FlabsError):
    """Flabs cannot be reached, does not answer in time, or answers that it failed (5xx)."""


class FlabsRefusedError(FlabsError):
    """Flabs refuses a call; asking again changes nothing. `status` is that of its answer."""

    def __init__(self, message: str, *, status: int, brief: str | None = None) -> None:
        super().__init__(message, brief=brief)
        self.status = status


class FlabsLoginError(FlabsRefusedError):
    """Flabs refuses the client id or its secret."""


class UndocumentedAnswerError(FlabsError):
    """Flabs answered something that its documentation does not describe."""


class SimulationError(LedgerError):
    """The simulation could not go on; the message says why and what to do."""


class SimulationOptionError(SimulationError):
    """An option of the simulation has a bad value; the message says which values it takes.

    `option` is the name of the field of `SimulationOptions`.
    """

    def __init__(self, option: str, takes: str) -> None:
        super().__init__(f"{option} {takes}")
        self.option = option
        self.takes = takes


def one_line(error: object) -> str:
    """Return the text of an error in one line; libraries break theirs into several."""
    return " ".join(str(error).split())
