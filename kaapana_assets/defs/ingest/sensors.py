"""The sensor that finds complete series in the spool and requests runs that ingest them."""

import json
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import dagster as dg

from kaapana_assets.clocks import is_future
from kaapana_assets.defs.ingest.assets import ARRIVALS_TAG, ingest_job
from kaapana_assets.defs.partitions import contiguous_ranges, range_tags
from kaapana_assets.defs.resources import Platform
from kaapana_assets.ingest.spool import Spool, open_spool

_WATCH_S = 4.0  # a tick watches the spool this long, since the daemon starts one only every 5 s
_LOOK_S = 0.25
_SERIES_PER_RUN = 2000
_RANGES_PER_TICK = 4  # each range is a run with a process of its own
_LONGEST_WAIT_S = 300.0
_SILENCE = timedelta(minutes=10)
_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Asked:
    """The series that the sensor requested and that were still in the spool at its next look.

    Attributes:
        tries: by series, the number of requests and the time of the last one, in seconds since the epoch.
    """

    tries: dict[str, tuple[int, float]]

    @staticmethod
    def from_cursor(cursor: str | None) -> "Asked":
        """Parse the cursor of the last tick."""
        kept = json.loads(cursor).get("asked", {}) if cursor else {}
        return Asked({uid: (tries, at) for uid, (tries, at) in kept.items()})

    def cursor(self) -> str:
        """Return the cursor for the next tick."""
        return json.dumps({"asked": self.tries})

    def only(self, waiting: set[str]) -> "Asked":
        """Drop the series that were ingested meanwhile; files of them that arrive later count as new."""
        return Asked({uid: tried for uid, tried in self.tries.items() if uid in waiting})

    def due(self, uid: str, now: float) -> bool:
        """Whether a series may be requested now: the pause grows with each request, up to five minutes.

        A series whose last request lies in the future is due: the clock was set back.
        """
        tries, at = self.tries.get(uid, (0, 0.0))
        return tries == 0 or is_future(at, now=now) or now >= at + min(5.0 * 2 ** min(tries, 10), _LONGEST_WAIT_S)

    def with_another(self, series: list[str], now: float) -> "Asked":
        """Count another request of these series."""
        return Asked({**self.tries, **{uid: (self.tries.get(uid, (0, now))[0] + 1, now) for uid in series}})


@dg.sensor(
    name="arrivals",
    job=ingest_job,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for one run over the series that are complete: association closed, and quiet for a while.",
)
def arrivals(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """Request runs for the complete series in the spool; new series form one contiguous range of partitions.

    While an ingest runs, nothing is requested, so that no series is in two runs at the same time.
    """
    asked = Asked.from_cursor(context.cursor)
    settings = platform.settings
    spool = open_spool(settings)
    deadline = time.monotonic() + _WATCH_S
    while True:
        running = _running(context.instance, spool)
        if running is None:
            ready = spool.ready(settings.series_quiet_s)
            asked = asked.only(set(ready))
            waiting = [uid for uid in ready if asked.due(uid, time.time())]
            if waiting:
                return _ask(context, waiting, asked)
        if time.monotonic() + _LOOK_S > deadline:
            break
        time.sleep(_LOOK_S)
    context.update_cursor(asked.cursor())
    if running is not None:
        return dg.SkipReason(f"run {running} is ingesting; what waits is next")
    return dg.SkipReason("nothing waits in the spool")


def _running(instance: dg.DagsterInstance, spool: Spool) -> str | None:
    """Return the id of the ingest run that is running or queued; None if there is none.

    After a power cut, Dagster may count a dead run as running for ever. So a run without a recent update does not
    count, unless a process holds the ingest lock of the spool. A run whose last update lies in the future, because
    the clock was set back, counts as one without a recent update.
    """
    records = instance.get_run_records(dg.RunsFilter(job_name="ingest", statuses=_UNFINISHED))
    heard_since = datetime.now(timezone.utc) - _SILENCE
    alive = [
        record
        for record in records
        if (record.update_timestamp > heard_since and not is_future(record.update_timestamp.timestamp()))
        or record.dagster_run.status is dg.DagsterRunStatus.QUEUED
    ]
    if records and not alive and spool.is_ingest_locked():
        alive = list(records)
    return alive[0].dagster_run.run_id if alive else None


def _ask(context: dg.SensorEvaluationContext, waiting: list[str], asked: Asked) -> dg.SensorResult:
    waiting = sorted(waiting)[:_SERIES_PER_RUN]
    known = list(context.instance.get_dynamic_partitions("series"))
    new = sorted(set(waiting) - set(known))
    ranges = contiguous_ranges(set(waiting), known + new)[-_RANGES_PER_TICK:]
    # Added here and not with the result, so that the partitions exist when the runs over their range start.
    context.instance.add_dynamic_partitions("series", new)
    place = {uid: number for number, uid in enumerate(known + new)}
    asked_for = [uid for uid in waiting if any(place[a] <= place[uid] <= place[b] for a, b in ranges)]
    requests = [
        dg.RunRequest(job_name="ingest", tags={**range_tags(first, last), ARRIVALS_TAG: "true"})
        for first, last in ranges
    ]
    context.log.info("%d series wait, %d of them new: %d asked for", len(waiting), len(new), len(asked_for))
    return dg.SensorResult(run_requests=requests, cursor=asked.with_another(asked_for, time.time()).cursor())
