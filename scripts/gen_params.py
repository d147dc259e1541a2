#!/usr/bin/env python3
"""gen_params.py PARAMS.DEF ROLES.DEF OUTDIR: the table of parameters becomes C and a man page.

Writes OUTDIR/params.h (struct conf, constants of enumerations), OUTDIR/params.c (the table that the
parser, the snapshots and the tools read) and OUTDIR/main.cf.5 (mdoc). The form of a row is told on
top of the .def file. Every mistake in a row is reported with file and line; nothing is written then.
"""
import hashlib
import os
import re
import sys

TYPES = ("bool", "int", "size", "time", "string", "raw", "list", "tables")
C_TYPE = {"bool": "bool", "int": "int64_t", "size": "int64_t", "time": "int64_t", "string": "const char *", "raw": "const char *",
          "list": "struct conf_list", "tables": "struct conf_tables", "enum": "int"}
UNITS = {"ms": 1, "s": 1000, "m": 60000, "h": 3600000, "d": 86400000, "w": 604800000}
SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
NO_BOUND = (-(1 << 63), (1 << 63) - 1)
ROW = re.compile(r"^([a-z][A-Za-z0-9_]*)\s+(\S+)\s+(\S+)\s+(\S+)\s+=(.*)$")


class Row:
    def __init__(self, name, kind, low, high, roles, default, line):
        self.name, self.kind, self.low, self.high = name, kind, low, high
        self.roles, self.default, self.line = roles, default, line
        self.doc, self.words, self.enum = [], [], None


class Generator:
    def __init__(self, params, roles):
        self.file, self.errors, self.rows, self.sections, self.enums = params, [], [], [], {}
        rows = [l.split() for l in open(roles, encoding="utf-8") if l.strip() and l[0] != "#"]
        self.roles = [r[0] for r in rows]
        self.programs = [r[0] for r in rows if r[4] == "master"]
        self.read()
        self.foreign = {}
        for origin in ("Postfix", "Dovecot"):
            self.read_foreign(origin)

    def read_foreign(self, origin):
        """Names that another suite knows. One that has become a row of ours is passed over."""
        path, instead = os.path.join(os.path.dirname(self.file), origin.lower() + ".def"), None
        ours = {r.name for r in self.rows}
        for n, text in enumerate(open(path, encoding="utf-8"), 1):
            if not text.strip() or text.startswith("#"):
                continue
            if text.startswith("= "):
                instead = text[2:].strip()
                continue
            name, _, rest = text.strip().partition(" ")
            would, _, own = rest.partition("|")
            if name in self.foreign or not would.strip() or not (own.strip() or instead):
                self.errors.append(f"{path}:{n}: {name} stands there twice or has no text")
            elif name not in ours:
                self.foreign[name] = (origin, would.strip(), own.strip() or instead)

    def fail(self, line, text):
        self.errors.append(f"{self.file}:{line}: {text}")

    def number(self, kind, text, line):
        units = {"time": UNITS, "size": SIZES, "int": {"": 1}}[kind]
        m = re.fullmatch(r"(-?\d+)([A-Za-z]*)", text)
        if not m or (m[2] not in units and m[1] != "0"):
            self.fail(line, f"'{text}' is no {kind}")
            return 0
        return int(m[1]) * units.get(m[2], 1)

    def bounds(self, kind, text, line):
        if text == "-":
            return (0, NO_BOUND[1]) if kind in ("int", "size", "time") else (0, 0)
        low, dots, high = text.partition("..")
        if not dots or kind not in ("int", "size", "time"):
            self.fail(line, "bounds are LOW..HIGH or -, and only numbers have them")
            return (0, 0)
        return (self.number(kind, low, line) if low else 0,
                self.number(kind, high, line) if high else NO_BOUND[1])

    def row(self, m, line):
        name, kind, bounds, roles, default = m[1], m[2], m[3], m[4].split(","), m[5].strip()
        enum = None
        if kind.startswith("enum:"):
            kind, enum = "enum", kind[5:]
        elif kind not in TYPES:
            return self.fail(line, f"no such type: {kind}")
        low, high = self.bounds(kind, bounds, line)
        row = Row(name, kind, low, high, roles, default, line)
        if enum:
            if enum not in self.enums:
                return self.fail(line, f"enum {enum} is not declared above")
            row.enum, row.words = enum, self.enums[enum]
            if default not in row.words and "$" not in default:
                self.fail(line, f"default '{default}' is none of {' '.join(row.words)}")
        if kind == "bool" and default not in ("yes", "no") and "$" not in default:
            self.fail(line, "default of a bool is yes or no")
        if kind in ("int", "size", "time") and "$" not in default:
            value = self.number(kind, default, line)
            if not low <= value <= high:
                self.fail(line, f"default {default} is out of bounds")
        for r in roles:
            if r != "all" and r not in self.roles:
                self.fail(line, f"no such role in roles.def: {r}")
        if any(r.name == name for r in self.rows):
            self.fail(line, f"{name} is declared twice")
        self.rows.append(row)
        if not self.sections:
            self.fail(line, "a [section] comes first")
        else:
            self.sections[-1][1].append(row)

    def read(self):
        for n, text in enumerate(open(self.file, encoding="utf-8"), 1):
            text = text.rstrip("\n")
            if not text.strip() or text.startswith("#"):
                continue
            if text[0] in " \t":
                if self.rows:
                    self.rows[-1].doc.append(text.strip())
            elif text.startswith("["):
                self.sections.append((text.strip("[] "), []))
            elif text.startswith("enum "):
                words = text.split()
                self.enums[words[1]] = words[2:]
            elif m := ROW.match(text):
                self.row(m, n)
            else:
                self.fail(n, "not a row: NAME TYPE LOW..HIGH ROLES = DEFAULT")
        for r in self.rows:
            if not r.doc:
                self.fail(r.line, f"{r.name} has no text")

    def header(self):
        out = ["/* Generated from lib/conf/params.def: do not edit. Times are in milliseconds, sizes in bytes. */",
               "#ifndef CONF_PARAMS_H", "#define CONF_PARAMS_H", "", '#include "conf/types.h"', ""]
        for name, words in self.enums.items():
            out.append(f"enum conf_{name} {{")
            out += [f"\t{constant(name, w)}," for w in words]
            out += ["};", ""]
        out += ["struct conf {", "\tstruct conf_mem *mem; /* owner of every string and list */"]
        for r in self.rows:
            t = C_TYPE[r.kind]
            unit = {"time": " /* ms */", "size": " /* bytes */"}.get(r.kind, "")
            if r.enum:
                unit = f" /* enum conf_{r.enum} */"
            out.append(f"\t{t}{'' if t.endswith('*') else ' '}{r.name};{unit}")
        shape = ";".join(f"{r.name}:{r.kind}:{','.join(r.words)}" for r in self.rows)
        digest = hashlib.sha256(shape.encode()).hexdigest()[:16]
        out += ["};", "", f"#define CONF_PARAM_COUNT {len(self.rows)}",
                "/* Names, types and order of all rows: a snapshot of another layout is refused. */",
                f"#define CONF_LAYOUT 0x{digest}ULL", "", "#endif", ""]
        return "\n".join(out)

    def source(self):
        out = ["/* Generated from lib/conf/params.def: do not edit. */", '#include "conf/params.h"', ""]
        for name, words in self.enums.items():
            out.append(f"static const char *const words_{name}[] = {{ {', '.join(quote(w) for w in words)}, NULL }};")
        out += ["", "const char *const conf_roles[] = {"]
        out += [f"\t{quote(r)}," for r in self.roles] + ["\tNULL,", "};", ""]
        out += ["const char *const conf_programs[] = {"]
        out += [f"\t{quote(r)}," for r in self.programs] + ["\tNULL,", "};", ""]
        out.append("const struct conf_param conf_params[] = {")
        for r in self.rows:
            mask = (1 << 64) - 1 if "all" in r.roles else sum(1 << self.roles.index(x) for x in r.roles)
            words = f"words_{r.enum}" if r.enum else "NULL"
            low = "INT64_MIN" if r.low == NO_BOUND[0] else f"{r.low}LL"
            high = "INT64_MAX" if r.high == NO_BOUND[1] else f"{r.high}LL"
            out.append(f"\t{{ {quote(r.name)}, CONF_{r.kind.upper()}, offsetof(struct conf, {r.name}), "
                       f"{quote(r.default)}, {low}, {high}, 0x{mask:x}ULL, {words}, {quote(' '.join(r.doc))} }},")
        order = sorted(range(len(self.rows)), key=lambda i: self.rows[i].name)
        out += ["};", "", "const uint16_t conf_params_by_name[] = {",
                "\t" + ", ".join(str(i) for i in order), "};", "",
                f"const size_t conf_foreign_count = {len(self.foreign)};"]
        out += ["const struct conf_foreign conf_foreign[] = {"]
        out += [f"\t{{ {quote(n)}, {', '.join(quote(x) for x in f)} }}," for n, f in
                sorted(self.foreign.items())]
        out += ["\t{ NULL, NULL, NULL, NULL },", "};", ""]
        return "\n".join(out)

    def page(self):
        out = [open(os.path.join(os.path.dirname(self.file), "main.cf.5.head"), encoding="utf-8").read().rstrip("\n")]
        for title, rows in self.sections:
            if not rows:
                continue
            out += [f".Ss {mdoc_words(title)}", ".Bl -tag -width Ds"]
            for r in sorted(rows, key=lambda r: r.name):
                out.append(f".It Va {r.name} Pq {mdoc_words(self.kind_text(r))}")
                out.append("Default:")
                out.append(f".Ql {mdoc_words(r.default)} ." if r.default else "empty.")
                out.append(".Pp")
                out += [mdoc_text(l) for l in r.doc]
            out.append(".El")
        tail = os.path.join(os.path.dirname(self.file), "main.cf.5.tail")
        out.append(open(tail, encoding="utf-8").read().rstrip("\n"))
        return "\n".join(out) + "\n"

    @staticmethod
    def kind_text(r):
        if r.kind == "bool":
            return "yes or no"
        if r.kind == "enum":
            return "one of " + " ".join(r.words)
        if r.kind in ("int", "size", "time"):
            top = "" if r.high == NO_BOUND[1] else f" to {scaled(r.kind, r.high)}"
            name = {"int": "number", "size": "size", "time": "time"}[r.kind]
            return f"{name}, {scaled(r.kind, r.low)}{top or ' or more'}"
        return {"string": "text", "raw": "text", "list": "list", "tables": "list of tables"}[r.kind]


def constant(enum, word):
    return f"CONF_{enum}_{word}".upper().replace("-", "_").replace(".", "_").replace(":", "_")


def quote(s):
    return '"' + s.replace("\\", "\\\\").replace('"', '\\"') + '"'


def scaled(kind, value):
    if kind == "int" or value == 0:
        return str(value)
    units = UNITS if kind == "time" else SIZES
    for unit, factor in sorted(units.items(), key=lambda u: -u[1]):
        if value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


def mdoc_text(s):
    s = s.replace("\\", "\\e")
    return "\\&" + s if s[:1] in (".", "'") else s


def mdoc_words(s):
    return " ".join("\\&" + w.replace("\\", "\\e").replace('"', '\\(dq') for w in s.split())


def main():
    gen = Generator(sys.argv[1], sys.argv[2])
    if gen.errors:
        sys.exit("\n".join(gen.errors))
    for name, text in (("params.h", gen.header()), ("params.c", gen.source()), ("main.cf.5", gen.page())):
        with open(os.path.join(sys.argv[3], name), "w", encoding="utf-8") as f:
            f.write(text)


main()
