"""The command line: ``h3lab ps|runs|attach|logs|stop|rm|start``, for runs and labs that have no notebook.

Exit codes: 0 done; 1 an error, said on stderr in one paragraph; 2 a wrong command line; 3 the run that was attached to
has failed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from h3lab.errors import H3labError, LabError, RunFailed, UsageError
from h3lab.running.folder import ENDED, folders

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except RunFailed as error:
        print(error, file=sys.stderr)
        return 3
    except H3labError as error:
        print(f"h3lab: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # | head
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="h3lab", description="Runs belong to the lab; this looks at them.")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    def verb(name: str, command: Command, text: str, *names: str, many: bool = False) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text)
        made.set_defaults(command=command)
        made.add_argument("--json", action="store_true", help="one JSON document instead of text")
        for each in names:
            made.add_argument(each, nargs="*" if many else "?", help="digits (its newest run) or digits/2")
        return made

    verb("ps", _ps, "the lab, its slots and what runs there")
    verb("runs", _runs, "every run of this home, newest first")
    verb("attach", _attach, "follow a run until it ends (Ctrl-C leaves it running)", "run")
    logs = verb("logs", _logs, "what the ranks of a run have printed", "run")
    logs.add_argument("-n", "--lines", type=int, default=100, help="the last lines (%(default)s)")
    logs.add_argument("--rank", type=int, help="of this rank alone")
    stop = verb("stop", _stop, "stop runs, each with its model kept; --all also ends the lab", "runs", many=True)
    stop.add_argument("--all", action="store_true", help="every run, then the lab and its engines")
    remove = verb("rm", _rm, "remove runs that have ended", "runs", many=True)
    remove.add_argument("--older-than", metavar="30d", help="all that ended before that: 30d, 12h, 90m")
    extend = verb("extend", _extend, "let the lab live, and paused runs keep their slots, for so long")
    extend.add_argument("age", metavar="24h", help="from its last use, or a pause: 24h, 2d, 90m")
    start = verb("start", _start, "start a lab, as h3.Lab(engines=N) does")
    start.add_argument("--engines", type=int, help="slots (2 where none is named)")
    return parser


def _attached(name: str | None) -> Any:
    from h3lab.cluster.attach import attach

    return attach(name)


def _ps(options: argparse.Namespace) -> int:
    from h3lab.cluster.labfolder import LabFolder

    folder = LabFolder()
    status = folder.status
    kept = folder.kept
    if status["state"] in ("ready", "starting") and not kept:
        from h3lab.cluster.lifetime import revive

        revive(folder)
        kept = True
    going = [_row(f) for f in folders() if f.state["state"] not in ENDED]
    if options.json:
        print(json.dumps({"lab": {**status, "kept": kept}, "runs": going}))
        return 0
    if not kept:
        print(f"no lab runs here ({status.get('reason', 'never started')}); h3lab start starts one")
    else:
        from h3lab.cluster.standing import holds, lease

        print(f"lab {folder.name}  {status['state']}  keeper {status.get('pid')}  {lease(status)} (h3lab extend 24h)")
        for slot in status["slots"]:
            words = (
                slot["name"].ljust(8),
                slot["state"].ljust(9),
                slot.get("run"),
                holds(slot.get("run")),
                slot["reason"],
            )
            print(" ", " ".join(filter(None, words)).rstrip())
    for row in going:
        print(row["line"])
    return 0


def _row(folder: Any) -> dict[str, Any]:
    from h3lab.running.run import Run

    run = Run(folder)
    status = {name: value for name, value in run.status().items() if isinstance(value, str | int | float | type(None))}
    return {**status, "line": repr(run), "created": run.info.get("created")}


def _runs(options: argparse.Namespace) -> int:
    from h3lab.running.folder import find
    from h3lab.running.listing import summaries
    from h3lab.running.status import line

    rows = summaries()
    if options.json:
        print(json.dumps([{name: value for name, value in row.items() if not isinstance(value, dict)} for row in rows]))
    for row in [] if options.json else rows:
        print(time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"])), line(find(row["name"]).info, row))
    return 0


def _attach(options: argparse.Namespace) -> int:
    run = _attached(options.run)
    if not options.json:
        run.wait()
        return 0
    for record in run:
        print(json.dumps(record), flush=True)
    return 0


def _logs(options: argparse.Namespace) -> int:
    text = _attached(options.run).logs(rank=options.rank, lines=options.lines)
    print(json.dumps({"logs": text}) if options.json else text)
    return 0


def _stop(options: argparse.Namespace) -> int:
    from h3lab.cluster.labfolder import LabFolder
    from h3lab.cluster.lifetime import end

    if not options.runs and not options.all:
        raise UsageError("name the runs to stop (h3lab ps lists them), or give --all.")
    going = [f.name for f in folders() if f.state["state"] not in ENDED] if options.all else []
    said = {name: _attached(name).stop() for name in [*options.runs, *going]}
    if options.all:
        end(LabFolder(), "h3lab stop --all")
        said["lab"] = "ended"
    if options.json:
        print(json.dumps(said))
    for name, text in {} if options.json else said.items():
        print(f"{name}: {text}")
    return 0


def _rm(options: argparse.Namespace) -> int:
    from h3lab.running.folder import find
    from h3lab.running.listing import ended
    from h3lab.running.run import Run

    if not options.runs and not options.older_than:
        raise UsageError("name the runs to remove, or give --older-than 30d.")
    chosen = [find(name) for name in options.runs]
    training = " ".join(folder.name for folder in chosen if folder.state["state"] not in ENDED)
    if training:  # before anything is removed
        raise LabError(f"nothing was removed, because {training} still trains. Stop it first: h3lab stop {training}")
    chosen += ended(_seconds(options.older_than)) if options.older_than else []
    names = list(dict.fromkeys(folder.name for folder in chosen))
    for name in names:
        Run(find(name)).delete()
    print(json.dumps(names) if options.json else "\n".join(f"removed {name}" for name in names) or "nothing to remove")
    return 0


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([dhm])", text)
    if not found:
        raise UsageError(f"{text!r} came; expected a number with d, h or m, for example 30d.")
    return float(found[1]) * {"d": 86400, "h": 3600, "m": 60}[found[2]]


def _extend(options: argparse.Namespace) -> int:
    from h3lab.cluster.labfolder import LabFolder
    from h3lab.cluster.lifetime import answer
    from h3lab.cluster.standing import lease

    folder = LabFolder()
    found = answer(folder, "lease", hours=_seconds(options.age) / 3600)
    print(json.dumps({"ends": found["ends"]}) if options.json else f"the lab {folder.name!r} {lease(found)}")
    return 0


def _start(options: argparse.Namespace) -> int:
    from h3lab.cluster.lab import Lab

    lab = Lab(engines=options.engines)
    print(json.dumps({"lab": lab.name}) if options.json else repr(lab))
    return 0
