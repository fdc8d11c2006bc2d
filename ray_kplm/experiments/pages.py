"""The results of a sweep as a table for the terminal, CSV, the best configuration, and an HTML page."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import yaml

from ray_kplm.config import Config
from ray_kplm.experiments.parallel_plot import last, parallel_coordinates
from ray_kplm.experiments.space import read_interval, shown
from ray_kplm.experiments.sweep_results import Trial, from_dict, ranked, short_names
from ray_kplm.report.text_table import align
from ray_kplm.storage.csv_cells import guard

_BANDS = 3
"""Parts into which the range of a distribution is cut to compare them."""

_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1a1d21;--quiet:#59636e;--line:#d8dde3;
--q0:#0b4f9e;--q1:#2f83c9;--q2:#7fa9c9;--q3:#b9b3a8;--q4:#cf9a72}
@media (prefers-color-scheme:dark){:root{--paper:#15171b;--ink:#e7e9ec;--quiet:#9ea7b1;--line:#31363e;
--q0:#8cc4ff;--q1:#4f97dc;--q2:#446d92;--q3:#6a6558;--q4:#9a6743}}
body{margin:0 auto;max-width:1240px;padding:20px 24px 60px;background:var(--paper);color:var(--ink);
font:15px/1.45 system-ui,sans-serif;font-variant-numeric:tabular-nums}
h1{font-size:28px;line-height:1.2;margin:2px 0 6px;overflow-wrap:anywhere} h2{font-size:19px;margin:36px 0 6px}
.quiet{color:var(--quiet);font-size:13.5px} .wide{overflow-x:auto}
table{border-collapse:collapse;font-size:14px} caption{text-align:left}
th,td{padding:4px 12px 4px 0;text-align:right;border-bottom:1px solid var(--line);vertical-align:top}
th:first-child,td:first-child,.trials :is(th,td):last-child{text-align:left} .parts{display:flex;flex-wrap:wrap;gap:20px 48px}
thead th{font-weight:600} tr.best td{font-weight:700}
code{font-size:13.5px;overflow-wrap:anywhere} svg{width:100%;height:auto;font-size:13px}
svg text{fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:4px} svg .head{font-weight:600}
svg .axis line{stroke:var(--ink)} svg polyline{fill:none;stroke-width:2;stroke-linejoin:round}
.q0{stroke:var(--q0)} .q1{stroke:var(--q1)} .q2{stroke:var(--q2)} .q3{stroke:var(--q3)} .q4{stroke:var(--q4)}
polyline.stopped{stroke-dasharray:5 4} polyline.best{stroke-width:4.5} polyline:hover{stroke:var(--ink);stroke-width:5}
"""


def best_yaml(config: Config, trial: Trial, title: str) -> str:
    """Return the best trial's whole configuration, as `kplm train` takes it, in the trial's run directory."""
    values = ", ".join(f"{path} = {shown(value)}" for path, value in trial.values.items())
    return (
        f"# Best of a sweep: trial {trial.number}, {title} {trial.objective:.4g}, {values}.\n"
        f"# `kplm train` finds it finished in `run`; with run=NEW it trains anew.\n"
        f"{yaml.safe_dump(config.to_dict(), sort_keys=False)}"
    )


def results_csv(results: Mapping[str, Any]) -> str:
    """Return CSV with a row for each trial, by number."""
    trials = results["trials"]
    figures = sorted({name for trial in trials for name in trial["figures"]} - {results["objective"]})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["trial", "state", *results["space"], results["objective"], "rounds", *figures, "seconds", "error"])
    for trial in trials:
        writer.writerow([
            trial["number"], trial["state"],
            *(guard(shown(trial["values"][path])) for path in results["space"]),
            last(trial), len(trial["reports"]),
            *(trial["figures"].get(name) for name in figures),
            trial["seconds"], guard(trial["error"] or ""),
        ])  # fmt: skip
    return out.getvalue()


def sweep_table(results: Mapping[str, Any]) -> str:
    """Return a text table of all trials, best first."""
    return "\n".join(align(_rows(results)))


def sweep_page(results: Mapping[str, Any]) -> str:
    """Return the page about a sweep, one HTML file without references to others."""
    trials = [from_dict(tree) for tree in results["trials"]]
    best = results["best"]
    states = ", ".join(f"{sum(t.state == s for t in trials)} {s}" for s in dict.fromkeys(t.state for t in trials))
    lead = "No trial is finished yet." if best is None else _lead(best, results["title"])
    picture = parallel_coordinates(results["space"], results["title"], results["trials"])
    parts = "".join(_influence(path, what, trials) for path, what in results["space"].items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Sweep {escape(results["sweep"])}</title><style>{_STYLE}</style></head><body>
<h1>Sweep {escape(results["sweep"])}</h1>
<p>{escape(results["dataset"])}: {len(trials)} trials ({escape(states)}). {lead}</p>
<h2>All trials by their values</h2>
<p class="quiet">Each line is a trial. The last axis is the objective; better is higher. Dashed lines are trials that are not
finished, with the objective of stage 1 after their last round. Hover a line for its values.</p>
<div class="wide">{picture}</div>
<h2>The objective by each value</h2>
<p class="quiet">Finished trials, grouped by one value at a time. The other values vary within a group, so a small group means
little.</p>
<div class="parts">{parts or "No trial is finished yet."}</div>
<h2>All trials</h2><div class="wide trials">{_html(_rows(results), _best_number(results))}</div>
</body></html>
"""


def _lead(best: Mapping[str, Any], title: str) -> str:
    values = ", ".join(f"{path}={shown(value)}" for path, value in best["values"].items())
    return f"Best: trial {best['number']} with <code>{escape(values)}</code>, {escape(title)}: <b>{best['objective']:.4g}</b>."


def _best_number(results: Mapping[str, Any]) -> str:
    return "" if results["best"] is None else str(results["best"]["number"])


def _rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Return a heading, and a row for each trial, best first."""
    names = short_names(list(results["space"]))
    trials = ranked([from_dict(tree) for tree in results["trials"]])
    backward = any("backward_nme" in trial.figures for trial in trials)
    rows = [["trial", *names.values(), results["title"], *(["backward"] if backward else []), "time", "state"]]
    for trial in trials:
        values = [shown(trial.values[path]) for path in results["space"]]
        more = [_number(trial.figures.get("backward_nme"))] if backward else []
        rows.append([str(trial.number), *values, _number(trial.last), *more, f"{trial.seconds:.0f} s", _state(trial)])
    return rows


def _state(trial: Trial) -> str:
    if trial.error:
        return f"failed: {trial.error}"
    return f"{trial.state} after round {max(trial.reports)}" if trial.state == "stopped" else trial.state


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _html(rows: Sequence[Sequence[str]], best: str) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        f"<tr{' class=best' if row[0] == best else ''}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows[1:]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _influence(path: str, what: str, trials: Sequence[Trial]) -> str:
    """Return a table of the finished trials of each value of a list, or of each part of a range: number, best, median."""
    groups: dict[str, list[float]] = {}
    finished = [t for t in trials if t.state == "finished" and t.objective is not None]
    for trial in sorted(finished, key=lambda t: _place(t.values[path])):
        groups.setdefault(_group(path, what, trial.values[path]), []).append(float(trial.objective or 0.0))
    if not groups:
        return ""
    rows = [[path, "trials", "best", "median"]]
    rows += [[n, str(len(o)), _number(min(o)), _number(statistics.median(o))] for n, o in groups.items()]
    return _html(rows, "")


def _place(value: Any) -> tuple[float, str]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (float(value), "") if number else (0.0, shown(value))


def _group(path: str, what: str, value: Any) -> str:
    """Return the part of a range that a number lies in, or the value of a list itself."""
    interval = read_interval(path, what)
    if interval is None:
        return shown(value)
    low, high = interval.low, interval.largest
    if interval.is_log:
        cuts = [low * (high / low) ** (i / _BANDS) for i in range(_BANDS + 1)]
    else:
        cuts = [low + (high - low) * i / _BANDS for i in range(_BANDS + 1)]
    band = min(sum(value >= cut for cut in cuts[1:]), _BANDS - 1)
    digits = 3 if high - low < 100 else max(3, math.ceil(math.log10(high)))
    return f"{cuts[band]:.{digits}g} to {cuts[band + 1]:.{digits}g}"
