"""Assembles DIMSE requests from the fragments that a peer sends.

References:
    PS3.7 6.3 (message structure), PS3.8 E.2 (fragments).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kaapana_assets.ingest.dimse_commands import COMMAND_LIMIT_BYTES, Command, ProtocolViolation, read_command
from kaapana_assets.ingest.received_dataset import ReceivedDataset

_IS_COMMAND, _IS_LAST = 1, 2


@dataclass(frozen=True)
class AcceptedContext:
    """An accepted presentation context."""

    context_id: int
    abstract_syntax_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, eq=False)
class DimseRequest:
    """A complete request; ``dataset`` is None if it has none or its dataset was dropped."""

    command: Command
    context: AcceptedContext
    dataset: ReceivedDataset | None


class MessageReader:
    """Assembles the requests of one association.

    Args:
        find_context: returns the accepted presentation context with an ID.
        new_dataset: returns the receiver of a request's dataset, or None to drop the dataset.
    """

    def __init__(
        self,
        find_context: Callable[[int], AcceptedContext | None],
        new_dataset: Callable[[Command, AcceptedContext], ReceivedDataset | None],
    ) -> None:
        self._find_context, self._new_dataset = find_context, new_dataset
        self._context: AcceptedContext | None = None
        self._encoded = b""
        self._command: Command | None = None
        self._dataset: ReceivedDataset | None = None

    @property
    def receiving(self) -> bool:
        """Whether a request is incomplete."""
        return self._context is not None

    def add_fragment(self, context_id: int, fragment: bytes) -> DimseRequest | None:
        """Add the next fragment, with its message control header; returns the request it completes.

        Raises:
            ProtocolViolation: the fragment may not follow the last one.
        """
        if not fragment:
            raise ProtocolViolation("a fragment without message control header")
        context = self._find_context(context_id)
        if context is None:
            raise ProtocolViolation(f"presentation context {context_id}, which was not accepted")
        if self._context is not None and self._context.context_id != context_id:
            raise ProtocolViolation("a message in two presentation contexts")
        is_command, is_last = fragment[0] & _IS_COMMAND, fragment[0] & _IS_LAST
        if bool(is_command) == (self._command is not None):
            raise ProtocolViolation("a command within a dataset" if is_command else "a dataset without command")
        self._context = context
        if is_command:
            self._add_command_fragment(fragment, context, is_last=bool(is_last))
        elif self._dataset is not None:
            self._dataset.write(memoryview(fragment)[1:])
        command = self._command
        if command is None or not is_last or (is_command and command.has_dataset):
            return None
        request = DimseRequest(command, context, self._dataset)
        self._context = self._command = self._dataset = None
        return request

    def discard(self) -> None:
        """Discard the incomplete request and its dataset."""
        if self._dataset is not None:
            self._dataset.discard()
        self._context = self._command = self._dataset = None
        self._encoded = b""

    def _add_command_fragment(self, fragment: bytes, context: AcceptedContext, *, is_last: bool) -> None:
        self._encoded += fragment[1:]
        if len(self._encoded) > COMMAND_LIMIT_BYTES:
            raise ProtocolViolation(f"a command set of more than {COMMAND_LIMIT_BYTES} bytes")
        if is_last:
            encoded, self._encoded = self._encoded, b""
            self._command = read_command(encoded)
            self._dataset = self._new_dataset(self._command, context) if self._command.has_dataset else None
