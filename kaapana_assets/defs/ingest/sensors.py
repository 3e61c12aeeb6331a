"""The sensor that sees finished series in the spool and asks for one run that ingests them."""

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

_WATCH_S = 4.0  # a tick watches the spool this long: the daemon itself comes only every 5 s
_LOOK_S = 0.25
_SERIES_PER_RUN = 2000
_RANGES_PER_TICK = 4  # each is a process of its own
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
    """The series that the sensor asked for and that still waited when it looked again.

    Attributes:
        tries: by series, how often it was asked for, and when last, in seconds since the epoch.
    """

    tries: dict[str, tuple[int, float]]

    @staticmethod
    def from_cursor(cursor: str | None) -> "Asked":
        """As the sensor left it at its last tick."""
        kept = json.loads(cursor).get("asked", {}) if cursor else {}
        return Asked({uid: (tries, at) for uid, (tries, at) in kept.items()})

    def cursor(self) -> str:
        """For the next tick."""
        return json.dumps({"asked": self.tries})

    def only(self, waiting: set[str]) -> "Asked":
        """Without the series that were taken in since; what comes late of them is new again."""
        return Asked({uid: tried for uid, tried in self.tries.items() if uid in waiting})

    def due(self, uid: str, now: float) -> bool:
        """Whether a series may be asked for now: each further try waits longer, up to five minutes.

        After the clock was set back, one that was tried in the future is.
        """
        tries, at = self.tries.get(uid, (0, 0.0))
        return tries == 0 or is_future(at, now=now) or now >= at + min(5.0 * 2 ** min(tries, 10), _LONGEST_WAIT_S)

    def with_another(self, series: list[str], now: float) -> "Asked":
        """With one more try of these series."""
        return Asked({**self.tries, **{uid: (self.tries.get(uid, (0, now))[0] + 1, now) for uid in series}})


@dg.sensor(
    name="arrivals",
    job=ingest_job,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for one run over the series that are complete: association closed, and quiet for a while.",
)
def arrivals(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """Ask for the series that wait, new ones as one contiguous range of partitions.

    One ingest at a time: what arrives meanwhile is asked for when it has ended, so that no series
    is in two runs at once.
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
    """The run that ingests now, or will.

    After a power cut Dagster may take a run for going on for ever: one that nothing was heard of
    for long does not count, unless somebody works on the spool; nor does one that was heard of in the
    future, before the clock was set back.
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
    # The partitions are added here and not with the result, so that a range over them is known when the runs start.
    context.instance.add_dynamic_partitions("series", new)
    place = {uid: number for number, uid in enumerate(known + new)}
    asked_for = [uid for uid in waiting if any(place[a] <= place[uid] <= place[b] for a, b in ranges)]
    requests = [
        dg.RunRequest(job_name="ingest", tags={**range_tags(first, last), ARRIVALS_TAG: "true"})
        for first, last in ranges
    ]
    context.log.info("%d series wait, %d of them new: %d asked for", len(waiting), len(new), len(asked_for))
    return dg.SensorResult(run_requests=requests, cursor=asked.with_another(asked_for, time.time()).cursor())
