"""Every error that this package raises on purpose, in one tree.

The branches follow what the caller can do about the error::

    KaapanaAssetsError
    ├── TemporaryError          try again, nothing has to change
    │   ├── StoreUnavailable    a PACS, index or object store does not answer
    │   ├── SpoolUnavailable    the spool cannot be written (full, read-only)
    │   ├── EngineUnavailable   a container engine or cluster does not answer
    │   └── DagsterUnavailable  Dagster's webserver does not answer
    ├── InputError              correct the input
    │   ├── InvalidIdentifier   a UID, name or path that is not allowed
    │   ├── UnreadableDicom     a file that is not DICOM or is damaged
    │   │   └── OverLimit       a file that would need more memory than a setting allows
    │   ├── SeriesSetAside      a series that crashed ingest again and again
    │   ├── ConflictingContent  the same identifier with other content
    │   ├── QueryError          a query that cannot be parsed; shows where
    │   ├── DamagedBackup       a backup that is damaged, incomplete or not safe to read
    │   ├── NotFound            no such series, cohort, workflow, bucket or object
    │   ├── ParameterError      a workflow parameter of the wrong name or type
    │   └── WorkflowError       a workflow file that defines no valid workflow
    ├── ConfigurationError      correct the settings that the message names
    └── OperatorError           an operator did not produce its declared outputs
        ├── OperatorFailed      its process ended with an error
        ├── OperatorTimeout     it ran longer than its limit
        ├── OperatorOutOfMemory it was killed for using too much memory
        ├── OutputMissing       it succeeded, but a declared output is missing
        └── UnsafePath          its output holds a link, a special file or too much

A message names the object (such as the UID), the system, and what to do. Each store and runner translates the
errors of its own library, with ``from``.
"""

from __future__ import annotations

from kaapana_assets.shown import shown_lines


class KaapanaAssetsError(Exception):
    """The base of all errors of this package; its text is escaped, so that it can be shown anywhere."""

    def __str__(self) -> str:
        return shown_lines(super().__str__())


class TemporaryError(KaapanaAssetsError):
    """Trying again later may succeed without any change."""


class StoreUnavailable(TemporaryError):
    """A PACS, metadata index or object store does not answer."""


class SpoolUnavailable(TemporaryError):
    """The spool cannot be written: disk full, read-only or without permission."""


class EngineUnavailable(TemporaryError):
    """A container engine or cluster does not answer, or cannot say how a container ended."""


class DagsterUnavailable(TemporaryError):
    """Dagster's webserver does not answer or answers with an error of its own."""


class InputError(KaapanaAssetsError):
    """The input has to be corrected."""


class InvalidIdentifier(InputError):
    """A UID, name or path that must not reach the file system."""


class UnreadableDicom(InputError):
    """A file that is not DICOM, is damaged, or lacks the identifiers needed to store it."""


class OverLimit(UnreadableDicom):
    """A file that would need more memory than a setting allows; names the setting."""


class SeriesSetAside(InputError):
    """A series whose ingest crashed again and again; it is in the quarantine."""


class ConflictingContent(InputError):
    """The same identifier is already stored with other content; the stored content stays."""


_AROUND = 60  # characters of a query that are shown on each side of an error


class QueryError(InputError):
    """A query that cannot be parsed.

    Attributes:
        text: the query as given.
        position: 0-based offset in ``text`` of the error.
    """

    def __init__(self, reason: str, *, text: str, position: int) -> None:
        self.reason = reason
        self.text = text
        self.position = position
        begin, end = max(0, position - _AROUND), position + _AROUND
        shown = "".join(" " if char.isspace() else char for char in text[begin:end])
        before, after = "... " if begin else "", " ..." if end < len(text) else ""
        marked = " " * (len(before) + position - begin) + "^"
        super().__init__(f"{reason} at character {position + 1}\n  {before}{shown}{after}\n  {marked}")


class DamagedBackup(InputError):
    """A backup that is damaged, incomplete or not safe to read; names the file."""


class NotFound(InputError):
    """No such series, cohort, workflow, bucket or object."""


class ParameterError(InputError):
    """A workflow parameter with an unknown name or a value of the wrong type."""


class WorkflowError(InputError):
    """A definition that is not a valid workflow; names the file and the operator."""


class ConfigurationError(KaapanaAssetsError):
    """Settings that cannot work; names the setting."""


class OperatorError(KaapanaAssetsError):
    """An operator did not produce its declared outputs."""


class OperatorFailed(OperatorError):
    """The operator's process ended with an error."""


class OperatorTimeout(OperatorError):
    """The operator ran longer than its limit and was ended."""


class OperatorOutOfMemory(OperatorError):
    """The operator was killed because it used more memory than allowed."""


class OutputMissing(OperatorError):
    """The operator succeeded, but a declared output is missing."""


class UnsafePath(OperatorError):
    """An operator's output holds a link, a special file or too much, so the platform does not touch it."""
