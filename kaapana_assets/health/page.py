"""The health report as a self-contained HTML page, in a light and a dark color scheme."""

from __future__ import annotations

from html import escape

from kaapana_assets.health import formatting
from kaapana_assets.health.findings import ErrorKind, HealthFinding, HealthReport, PastError
from kaapana_assets.shown import shown

REFRESH_S = 10
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_KINDS = {ErrorKind.RUN: "failed run", ErrorKind.PART: "crashed part", ErrorKind.FILE: "quarantined file"}
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2530; --dim: #5b6875; --ground: #f4f6f8; --card: #fff; --line: #dde3e9;
  --good: #14713d; --bad: #b3261e; --off: #66717d; --good-ground: #def3e5; --bad-ground: #fbe3e1; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ee; --dim: #9aa7b4; --ground: #12171c; --card: #1a2128; --line: #2d3741;
    --good: #6fd49a; --bad: #ff9d94; --off: #9aa7b4; --good-ground: #143523; --bad-ground: #47201d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 68rem; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.25rem; margin: 0; }
h2 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
header { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: baseline; }
a { color: inherit; }
.state { padding: .1rem .6rem; border-radius: 1rem; font-weight: 600; white-space: nowrap; }
.works { color: var(--good); background: var(--good-ground); }
.broken { color: var(--bad); background: var(--bad-ground); }
.off { color: var(--off); border: 1px solid var(--line); }
.dim { color: var(--dim); }
.problem { color: var(--bad); white-space: pre-line; }
table { width: 100%; border-collapse: collapse; background: var(--card); border: 1px solid var(--line); }
th, td { text-align: left; vertical-align: top; padding: .55rem .75rem; border-top: 1px solid var(--line); }
tr:first-child > * { border-top: 0; }
th { white-space: nowrap; font-weight: 600; width: 8rem; }
td:nth-child(2) { width: 6rem; }
td.when { white-space: nowrap; color: var(--dim); width: 11rem; }
td.kind { width: 9rem; }
@media (max-width: 40rem) { tr, th, td { display: block; width: auto !important; border-top: 0; padding: .2rem .75rem; }
  tr { border-top: 1px solid var(--line); padding: .4rem 0; } }
"""


def page(report: HealthReport) -> str:
    """The HTML of the page; browsers reload it every ``REFRESH_S`` seconds."""
    state = "works" if report.ok else "broken"
    headline = escape(formatting.headline(report))
    rows = "".join(_row(name, each) for name, each in report.findings.items())
    errors = "".join(_error(each) for each in report.errors)
    past = f"<table>{errors}</table>" if errors else '<p class="dim">none</p>'
    dagster = f' · <a href="{escape(report.dagster_url)}">Dagster</a>' if report.dagster_url else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{REFRESH_S}">
<title>{"" if report.ok else "! "}Kaapana: {headline}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>Kaapana assets</h1><span class="state {state}">{headline}</span></header>
<p class="dim">{escape(shown(report.home))} · {formatting.local_time(report.time)}{dagster}
 · <a href="/health.json">JSON</a></p>
<table>{rows}</table>
<h2>Last errors</h2>
{past}
</body>
</html>
"""


def _row(name: str, finding: HealthFinding) -> str:
    details = [escape(each) for each in (formatting.product(finding), formatting.counts(finding)) if each]
    if finding.where:
        details.append(f'<span class="dim">{escape(finding.where)}</span>')
    if finding.problem:
        kind = "problem" if finding.state.value == "broken" else "dim"
        details.append(f'<span class="{kind}">{escape(finding.problem)}</span>')
    state = finding.state.value
    return (
        f'<tr><th>{escape(formatting.title(name))}</th><td><span class="state {state}">{state}</span></td>'
        f"<td>{'<br>'.join(details)}</td></tr>"
    )


def _error(error: PastError) -> str:
    where = escape(error.where)
    if error.where.startswith(("http://", "https://")):
        where = f'<a href="{where}">{where}</a>'
    return (
        f'<tr><td class="when">{formatting.local_time(error.time)}</td><td class="kind">{_KINDS[error.kind]}</td>'
        f'<td>{escape(error.what)}<br>{escape(error.reason)}<br><span class="dim">{where}</span></td></tr>'
    )
