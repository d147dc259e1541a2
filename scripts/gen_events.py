#!/usr/bin/env python3
"""gen_events.py EVENTS.DEF ROLES.DEF OUTDIR: the table of log events becomes C and a man page.

Writes OUTDIR/events.h (the constants that log_event() takes), OUTDIR/events.c (name, level and class of each),
OUTDIR/events_text.c (what each means, for the tools alone) and OUTDIR/bulkhead-log.5 (mdoc). The form of a row is told
on top of the .def file. Every mistake in a row is reported with file and line; nothing is written then.
"""
import os
import re
import sys

LEVELS = ("debug", "info", "warning", "error")
ROW = re.compile(r"^([a-z][a-z0-9-]*)\s+(\S+)\s+(\S+)\s+(\S+)$")


class Event:
    def __init__(self, m, line):
        self.name, self.level, self.keep, self.daemons, self.line = m[1], m[2], m[3] == "keep", m[4].split(","), line
        self.means, self.remedy = [], []


def read(path, roles):
    sections, errors, names = [], [], set()
    for n, text in enumerate(open(path, encoding="utf-8"), 1):
        text = text.rstrip("\n")
        if not text.strip() or text.startswith("#"):
            continue
        if text.startswith("["):
            sections.append((text.strip("[] "), []))
        elif text[0] in " \t" and sections and sections[-1][1]:
            e, text = sections[-1][1][-1], text.strip()
            (e.remedy if text.startswith("-> ") else e.means).append(text.removeprefix("-> "))
        elif (m := ROW.match(text)) and sections and m[2] in LEVELS and m[3] in ("keep", "-"):
            e = Event(m, n)
            errors += [f"{path}:{n}: no such daemon: {d}" for d in e.daemons if d != "all" and d not in roles]
            if e.name in names:
                errors.append(f"{path}:{n}: {e.name} is declared twice")
            names.add(e.name)
            sections[-1][1].append(e)
        else:
            errors.append(f"{path}:{n}: not a row: NAME LEVEL keep|- DAEMONS, below a [section]")
    for _, events in sections:
        for e in events:
            if not e.means:
                errors.append(f"{path}:{e.line}: {e.name} does not say what it means")
            if e.level in ("warning", "error") and not e.remedy:
                errors.append(f"{path}:{e.line}: {e.name} does not say what to do (-> ...)")
    return sections, errors


def quote(s):
    return '"' + s.replace("\\", "\\\\").replace('"', '\\"') + '"'


def header(events):
    out = ["/* Generated from lib/daemon/events.def: do not edit. */", "#ifndef DAEMON_EVENTS_H", "#define DAEMON_EVENTS_H",
           "", "enum log_event {"]
    out += [f"\tLOG_{e.name.replace('-', '_')}," for e in events]
    return "\n".join(out + ["\tLOG_EVENT_COUNT,", "};", "", "#endif", ""])


def table(events):
    out = ["/* Generated from lib/daemon/events.def: do not edit. */", '#include "daemon/log.h"', "",
           "const struct log_event_row log_events[LOG_EVENT_COUNT] = {"]
    out += [f"\t{{ {quote(e.name)}, {LEVELS.index(e.level)}, {'true' if e.keep else 'false'}, {quote(' '.join(e.remedy))} }}," for e in events]
    return "\n".join(out + ["};", ""])


def texts(events):
    out = ["/* Generated from lib/daemon/events.def: do not edit. */", '#include "daemon/log.h"', "",
           "const struct log_event_text log_event_texts[LOG_EVENT_COUNT] = {"]
    for e in events:
        daemons = "every daemon" if e.daemons == ["all"] else ", ".join(e.daemons)
        out.append(f"\t{{ {quote(daemons)}, {quote(' '.join(e.means))} }},")
    return "\n".join(out + ["};", ""])


def mdoc(s):
    s = s.replace("\\", "\\e")
    return "\\&" + s if s[:1] in (".", "'") else s


def page(head, sections):
    out = [open(head, encoding="utf-8").read().rstrip("\n")]
    for title, events in sections:
        out += [f".Ss {title}", ".Bl -tag -width Ds"]
        for e in sorted(events, key=lambda e: e.name):
            kept = ", kept" if e.keep else ""
            out.append(f".It Cm {e.name} Pq {e.level}{kept}; {'every daemon' if e.daemons == ['all'] else ', '.join(e.daemons)}")
            out += [mdoc(s) for s in e.means]
            if e.remedy:
                out += [".br", ".Em To do :"] + [mdoc(s) for s in e.remedy]
        out.append(".El")
    return "\n".join(out + [".Sh SEE ALSO", ".Xr main.cf 5 ,", ".Xr bulkhead 8 ,", ".Xr log 8", ""])


def main():
    source, roles, out = sys.argv[1:]
    sections, errors = read(source, {l.split()[0] for l in open(roles, encoding="utf-8") if l.strip() and l[0] != "#"})
    if errors:
        sys.exit("\n".join(errors))
    events = [e for _, some in sections for e in some]
    head = os.path.join(os.path.dirname(source), "bulkhead-log.5.head")
    for name, text in (("events.h", header(events)), ("events.c", table(events)), ("events_text.c", texts(events)),
                       ("bulkhead-log.5", page(head, sections))):
        with open(os.path.join(out, name), "w", encoding="utf-8") as f:
            f.write(text)


main()
