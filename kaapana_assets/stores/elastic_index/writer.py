"""Bulk writes: the next batches are prepared while one is sent, and only failed operations are sent again."""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from elastic_transport import ApiError, ConnectionTimeout, TransportError
from elastic_transport import ConnectionError as NoConnection
from elasticsearch import Elasticsearch

from kaapana_assets.errors import InputError, StoreUnavailable
from kaapana_assets.retry import Patience, repeating
from kaapana_assets.stores.elastic_index.errors import WORTH_ANOTHER_TRY, translation
from kaapana_assets.stores.tls_errors import fails_for_good

BATCH_BYTES = 4 * 1024**2
BATCH_OPERATIONS = 500

_PREPARED = 2  # batches that may wait while another is being sent
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_BLOCKED = "cluster_block_exception"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Operation:
    """One operation of a bulk request: it puts a document, or deletes one if ``body`` is None.

    Attributes:
        plain: makes a body that no mapping can refuse, for when the server refuses ``body``.
    """

    uid: str
    body: str | None
    plain: Callable[[], str] | None = None

    def lines(self) -> list[str]:
        """The lines of the operation in a bulk request."""
        action = json.dumps({"delete" if self.body is None else "index": {"_id": self.uid}})
        return [action] if self.body is None else [action, self.body]


class _NotTaken(Exception):
    """Operations have to be sent again; the message says why."""


class BulkWriter:
    """Sends operations to one index, in order, and retries while the server cannot take them.

    Args:
        client: the client; its own retries are turned off here.
        index: name of an index or an alias.
        patience_s: seconds for which a batch is retried without any progress.
        is_alias: whether ``index`` is an alias; the server then refuses to make an index of that name.
    """

    def __init__(self, client: Elasticsearch, index: str, *, patience_s: float, is_alias: bool = True) -> None:
        self._client = client.options(max_retries=0)
        self._index = index
        self._patience_s = patience_s
        self._is_alias = is_alias

    def write(self, operations: Iterable[Operation]) -> None:
        """Send all operations; they are durable on return. If ``operations`` raises, earlier ones may have been sent.

        Raises:
            StoreUnavailable: the server was unavailable or too busy for too long; what it took stays.
            InputError: the server refuses a document even in its plain form.
        """
        failed = threading.Event()

        def send(batch: Sequence[Operation]) -> None:
            if failed.is_set():
                return
            try:
                self._send(batch)
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="elastic-bulk") as sender:
            # Only one batch is sent at a time: a slow server slows the caller down, and the order is kept.
            # The prepared batches keep both sides busy when their speeds vary.
            sent: deque[Future[None]] = deque()
            try:
                for batch in _batches(operations):
                    if len(sent) > _PREPARED:
                        sent.popleft().result()
                    sent.append(sender.submit(send, batch))
            finally:
                for future in sent:
                    future.result()

    def refresh(self, *, patience_s: float) -> None:
        """Make what was written visible to searches.

        Raises:
            StoreUnavailable: the server was unavailable for too long; what was written is kept.
        """

        def ask() -> None:
            try:
                self._client.indices.refresh(index=self._index)
            except (ApiError, TransportError) as exc:
                raise translation(exc) from exc

        repeating(_patience(patience_s), lambda exc: isinstance(exc, StoreUnavailable))(ask)

    def _send(self, batch: Sequence[Operation]) -> None:
        remaining = list(batch)
        patience = _patience(self._patience_s)

        def attempt() -> None:
            nonlocal remaining
            try:
                left, reason = self._attempt(remaining)
            except (NoConnection, ConnectionTimeout) as exc:
                if fails_for_good(exc):
                    raise translation(exc) from exc
                left, reason = remaining, type(exc).__name__
            if len(left) < len(remaining):
                patience.renew()
            remaining = left
            if remaining:
                raise _NotTaken(reason)

        def tell(error: BaseException, _pause_s: float) -> None:
            logger.warning("metadata index: %d of %d wait (%s)", len(remaining), len(batch), error)

        try:
            repeating(patience, lambda exc: isinstance(exc, _NotTaken), before_pause=tell)(attempt)
        except _NotTaken as exc:
            raise StoreUnavailable(
                f"the metadata index took nothing for {self._patience_s:g} s ({exc}); {len(remaining)} series, "
                f"first {remaining[0].uid}, are not in it: bring them in again when Elasticsearch is well"
            ) from exc

    def _attempt(self, batch: Sequence[Operation]) -> tuple[list[Operation], str]:
        """Send one request. Returns the operations to send again, and why."""
        lines: Any = [line for operation in batch for line in operation.lines()]  # strings are sent unchanged
        try:
            answer = self._client.bulk(index=self._index, operations=lines, require_alias=self._is_alias).body
        except ApiError as exc:
            if exc.meta.status == 413 and len(batch) > 1:
                return self._halves(batch)
            if exc.meta.status not in WORTH_ANOTHER_TRY:
                raise translation(exc) from exc
            return list(batch), f"status {exc.meta.status}"
        if not answer["errors"]:
            return [], ""
        return self._failed(batch, answer["items"])

    def _halves(self, batch: Sequence[Operation]) -> tuple[list[Operation], str]:
        middle = len(batch) // 2
        left: list[Operation] = []
        reason = ""
        for half in (batch[:middle], batch[middle:]):
            again, why = self._attempt(half)
            left += again
            reason = why or reason
        return left, reason

    def _failed(self, batch: Sequence[Operation], items: Sequence[dict[str, Any]]) -> tuple[list[Operation], str]:
        left = []
        reason = ""
        for operation, item in zip(batch, items, strict=True):
            (result,) = item.values()
            status, kind = int(result["status"]), str(result.get("error", {}).get("type", ""))
            if status < 300 or (status == 404 and operation.body is None and not kind):
                continue
            if status in WORTH_ANOTHER_TRY or kind == _BLOCKED:
                reason = kind or f"status {status}"
                left.append(operation)
            elif status == 404:
                raise StoreUnavailable(
                    f"series {operation.uid} was not taken, the metadata index is gone from Elasticsearch ({kind}): "
                    "make it again with `kaapana-assets index rebuild`"
                )
            elif operation.plain is not None:
                logger.warning(
                    "series %s: Elasticsearch refuses its fields (%s), it is put plainly", operation.uid, kind
                )
                left.append(Operation(operation.uid, operation.plain()))
                reason = kind
            else:
                raise InputError(f"series {operation.uid}: Elasticsearch refuses its document ({kind})")
        return left, reason


def _patience(seconds: float) -> Patience:
    return Patience(seconds, first_s=_FIRST_PAUSE_S, longest_s=_LONGEST_PAUSE_S)


def _batches(operations: Iterable[Operation]) -> Iterator[list[Operation]]:
    batch: list[Operation] = []
    size = 0
    for operation in operations:
        length = len(operation.body or "")
        if batch and (size + length > BATCH_BYTES or len(batch) == BATCH_OPERATIONS):
            yield batch
            batch, size = [], 0
        batch.append(operation)
        size += length
    if batch:
        yield batch
