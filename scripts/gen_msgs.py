#!/usr/bin/env python3
"""gen_msgs.py MSGS.DEF ROLES.DEF OUTDIR: the IPC message table and the role table become C (msgs.h, msgs.c)."""
import hashlib
import pathlib
import sys

INTS = {"u8": "uint8_t", "u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t"}


def fail(path, line, text):
    sys.exit(f"{path}:{line}: {text}")


def c_name(role):
    return "ROLE_" + role.upper().replace("-", "_")


def read_roles(path):
    roles = []
    for line in open(path):
        line = line.split("#")[0].split(None, 5)
        if line:
            roles.append((line[0], line[1], line[2], line[3], line[4], line[5].strip()))
    return roles


def read_msgs(path, roles):
    names = [r[0] for r in roles]
    items, msgs, cur, doc = [], [], None, []
    for no, raw in enumerate(open(path), 1):
        line = raw.rstrip()
        if line.startswith("## "):
            doc.append(line[3:])
            continue
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] == "item":
            cur = {"name": words[1], "fields": [], "doc": doc, "fd": None}
            items.append(cur)
        elif words[0] == "msg":
            arrow = words.index("->")
            frm, to = words[3:arrow], words[arrow + 1:]
            for r in frm + to:
                if r not in ("*", "parent", *names):
                    fail(path, no, f"unknown role {r}")
            cur = {"name": words[1], "fields": [], "doc": doc, "from": frm, "to": to, "fd": None}
            msgs.append(cur)
        elif words[0] == "fd":
            cur["fd"] = words[1]
            continue
        elif words[0] == "secret":
            cur["secret"] = True
            continue
        elif words[0] in INTS:
            cur["fields"].append((words[0], words[1]))
            continue
        elif words[0] in ("bytes", "text"):
            cur["fields"].append((words[0], words[1], int(words[2])))
            continue
        elif words[0] == "list":
            if words[2] not in [i["name"] for i in items]:
                fail(path, no, f"unknown item {words[2]}")
            cur["fields"].append((words[0], words[1], words[2], int(words[3])))
            continue
        else:
            fail(path, no, f"cannot read '{line}'")
        doc = []
    return items, msgs


# What becomes of a field, by its kind, in each of the four places; kind, name, then its limit or its item and limit.
STRUCT = {"int": "\t{ctype} {name};", "list": "\tstruct msg_list {name}; /* of item_{item}, at most {limit} */",
          "bytes": "\tstruct slice {name}; /* bytes, at most {limit} */", "text": "\tstruct slice {name}; /* text, at most {limit} */"}
ENCODE = {"int": "\tbuf_add_{kind}(b, v->{name});", "list": "\tput_list(b, &v->{name}, {limit});",
          "bytes": "\tput_bytes(b, v->{name}, {limit});", "text": "\tput_text(b, v->{name}, {limit});"}
DECODE = {"int": "\tv->{name} = cursor_{kind}(c);", "list": "\tv->{name} = list(c, {limit}, check_{item});",
          "bytes": "\tv->{name} = cursor_counted(c, {limit});", "text": "\tv->{name} = text(c, {limit});"}
PRINT = {"int": '\tbuf_addf(b, " {name}=%llu", (unsigned long long)v->{name});', "list": '\tbuf_addf(b, " {name}=[%u]", v->{name}.n);',
         "bytes": '\tprint_bytes(b, "{name}", v->{name});', "text": '\tprint_bytes(b, "{name}", v->{name});'}


def render(templates, fields, empty):
    out = []
    for kind, name, *rest in fields:
        place = "int" if kind in INTS else kind
        out.append(templates[place].format(kind=kind, name=name, ctype=INTS.get(kind), limit=rest[-1] if rest else None,
                                           item=rest[0] if rest else None))
    return out or empty


def unused(var):
    return [f"\t(void){var};", "\t(void)v;"]


def mask(roles, names):
    if "*" in roles:
        return "ROLES_ALL"
    return " | ".join(f"ROLE_BIT({c_name(r)})" for r in roles if r != "parent") or "0"


HEADER = """/* Generated from lib/ipc/msgs.def and lib/daemon/roles.def by scripts/gen_msgs.py. */
#ifndef IPC_MSGS_H
#define IPC_MSGS_H

#include "base/buf.h"

#define MSG_MAX ((size_t)65536) /* bytes of one message on the wire */
"""

SOURCE = """/* Generated from lib/ipc/msgs.def and lib/daemon/roles.def by scripts/gen_msgs.py. */
#include "ipc/msgs.h"

#define ROLE_BIT(r) (1u << (r))
#define ROLES_ALL 0xffffffffu

static bool
is_text(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '\\0' || s.p[i] == '\\r' || s.p[i] == '\\n')
			return false;
	return true;
}

/* What the receiver would refuse fails at the sender: a message is lost, and not the channel. */
static void
put_bytes(struct buf *b, struct slice s, size_t max)
{
	buf_add_counted(b, s);
	if (s.n > max)
		b->err = ERR_LIMIT;
}

static void
put_text(struct buf *b, struct slice s, size_t max)
{
	put_bytes(b, s, max);
	if (!is_text(s))
		b->err = ERR_SYNTAX;
}

static void
put_list(struct buf *b, const struct msg_list *l, uint32_t max)
{
	buf_add_u32(b, l->n);
	buf_add_counted(b, l->raw);
	if (l->n > max)
		b->err = ERR_LIMIT;
}

static struct slice
text(struct cursor *c, size_t max)
{
	struct slice s = cursor_counted(c, max);

	if (!is_text(s)) {
		c->err = ERR_SYNTAX;
		return SLICE_NULL;
	}
	return s;
}

static struct msg_list
list(struct cursor *c, uint32_t max, int (*check)(struct cursor *))
{
	struct msg_list l = { .n = cursor_u32(c) };
	struct cursor items;

	l.raw = cursor_counted(c, MSG_MAX);
	items = cursor(l.raw);
	if (!c->err && l.n > max)
		c->err = ERR_LIMIT;
	for (uint32_t i = 0; i < l.n && !c->err; i++)
		c->err = check(&items);
	if (!c->err)
		c->err = cursor_end(&items);
	return c->err ? (struct msg_list){ 0 } : l;
}

static void
print_bytes(struct buf *b, const char *name, struct slice s)
{
	buf_addf(b, " %s=\\"", name);
	for (size_t i = 0; i < s.n && i < 64; i++)
		if (s.p[i] > ' ' && s.p[i] < 127 && s.p[i] != '"')
			buf_add_byte(b, s.p[i]);
		else
			buf_addf(b, "\\\\%02x", s.p[i]);
	buf_addf(b, s.n > 64 ? "\\"...(%zu)" : "\\"", s.n);
}
"""


HEADER_END = """/* A message of that type without descriptor and zeroed fields: struct msg m = MSG_INIT(MSG_STOP, 0); */
#define MSG_INIT(TYPE, ID) { .type = (TYPE), .id = (ID), .fd = -1 }

const char *msg_name(enum msg_type type);
/* Whether from may send this type to to. */
bool msg_allowed(enum msg_type type, enum role from, enum role to);
/* 0: no descriptor, 1: exactly one, 2: at most one. */
int msg_fd_rule(enum msg_type type);
/* Whether it carries secrets: buffers that held it are wiped. */
bool msg_secret(enum msg_type type);
/* Appends header and body; b->err after it tells whether the receiver would take it. */
void msg_encode(struct buf *b, const struct msg *m);
/* Reads one whole message; all of it must be consumed. Leaves m->fd alone. ERR_SYNTAX, ERR_LIMIT, ERR_TRUNCATED. */
int msg_decode(struct slice in, struct msg *m) CHECKED;
/* One line for traces; of one that carries secrets only the name. */
void msg_print(struct buf *b, const struct msg *m);
#endif"""

TABLE_FUNCTIONS = """const char *
msg_name(enum msg_type type)
{
	return type > MSG_NONE && type < MSG_TYPE_COUNT ? rows[type].name : "unknown";
}

bool
msg_allowed(enum msg_type type, enum role from, enum role to)
{
	if (type <= MSG_NONE || type >= MSG_TYPE_COUNT || !(rows[type].to & ROLE_BIT(to)))
		return false;
	return rows[type].from & ROLE_BIT(from) || (rows[type].parent && role_table[to].parent == (int)from);
}

int
msg_fd_rule(enum msg_type type)
{
	return rows[type].fd;
}

bool
msg_secret(enum msg_type type)
{
	return rows[type].secret;
}
"""


def roles_out(roles, h, c):
    h.append("enum role {")
    for r in roles:
        h.append(f"\t{c_name(r[0])}, /* {r[5]} */")
    h.append("\tROLE_COUNT\n};\n")
    h.append("struct role_row {\n\tconst char *name;\n\tint number; /* uid = uid_base + number; -1: the recipient's or the caller's */"
             "\n\tconst char *user, *root, *what;\n\tint parent; /* enum role, or -1 */\n};")
    h.append("extern const struct role_row role_table[ROLE_COUNT];")
    h.append("/* The role of that name, or -1. */\nint role_by_name(struct slice name);\n")
    c.append("const struct role_row role_table[ROLE_COUNT] = {")
    for r in roles:
        parent = "-1" if r[4] == "-" else c_name(r[4])
        number = "-1" if r[1] == "-" else r[1]
        c.append(f'\t[{c_name(r[0])}] = {{ "{r[0]}", {number}, "{r[2]}", "{r[3]}", "{r[5]}", {parent} }},')
    c.append("};\n")
    c.append("int\nrole_by_name(struct slice name)\n{\n\tfor (int i = 0; i < ROLE_COUNT; i++)\n\t\tif (slice_eq_str(name, role_table[i].name))\n"
             "\t\t\treturn i;\n\treturn -1;\n}\n")


def struct_out(kind, row, h):
    h.append(f"struct {kind}_{row['name']} {{")
    h += render(STRUCT, row["fields"], ["\tchar empty;"])
    h.append("};")


def item_out(it, h, c):
    n = it["name"]
    struct_out("item", it, h)
    h.append(f"void item_{n}_add(struct buf *b, const struct item_{n} *v);")
    h.append(f"/* The next item of cursor(list.raw); false at the end. */\nbool item_{n}_next(struct cursor *c, struct item_{n} *v);\n")
    c.append(f"void\nitem_{n}_add(struct buf *b, const struct item_{n} *v)\n{{")
    c += render(ENCODE, it["fields"], unused("b"))
    c.append("}\n")
    c.append(f"static int\ndecode_item_{n}(struct cursor *c, struct item_{n} *v)\n{{")
    c += render(DECODE, it["fields"], unused("c"))
    c.append("\treturn c->err;\n}\n")
    c.append(f"static int\ncheck_{n}(struct cursor *c)\n{{\n\tstruct item_{n} v;\n\n\treturn decode_item_{n}(c, &v);\n}}\n")
    c.append(f"bool\nitem_{n}_next(struct cursor *c, struct item_{n} *v)\n{{\n\treturn c->at < c->in.n && !decode_item_{n}(c, v);\n}}\n")


def msg_out(m, h, c):
    n = m["name"]
    h += [f"/* {d} */" for d in m["doc"]]
    struct_out("msg", m, h)
    for kind, args, templates, var in (("encode", "struct buf *b, const", ENCODE, "b"), ("print", "struct buf *b, const", PRINT, "b"),
                                       ("decode", "struct cursor *c,", DECODE, "c")):
        c.append(f"static void\n{kind}_{n}({args} struct msg_{n} *v)\n{{")
        c += render(templates, m["fields"], unused(var))
        c.append("}\n")


def types_out(msgs, h):
    h.append("enum msg_type {\n\tMSG_NONE,")
    h += [f"\tMSG_{m['name'].upper()}," for m in msgs]
    h.append("\tMSG_TYPE_COUNT\n};\n")
    h.append("/* Items as they stand on the wire; already checked in a decoded message. */\nstruct msg_list {\n\tstruct slice raw;\n\tuint32_t n;\n};\n")
    h.append("/* A list for sending, of n items that were added to b; borrows the buffer. If one of them did not fit, no message\n"
             " * takes the list. */\nstatic inline struct msg_list\n"
             "msg_list(const struct buf *b, uint32_t n)\n{\n\treturn (struct msg_list){ buf_slice(b), b->err ? UINT32_MAX : n };\n}\n")


def union_out(msgs, h):
    h.append("\n/* One message. Slices borrow: on receipt from the channel's buffer, valid until the handler returns. */")
    h.append("struct msg {\n\tenum msg_type type;\n\tuint32_t id; /* chosen by the asker, repeated in the answer; 0 where no answer is due */"
             "\n\tint fd;      /* -1, or a descriptor that belongs to whoever holds the struct */\n\tunion {")
    h += [f"\t\tstruct msg_{m['name']} {m['name']};" for m in msgs]
    h.append("\t};\n};\n")


def table_out(msgs, roles, c):
    c.append("static const struct {\n\tconst char *name;\n\tuint32_t from, to;\n\tint fd;\n\tbool secret, parent; /* from: the parent of the receiver */\n} rows[MSG_TYPE_COUNT] = {")
    for m in msgs:
        fd = {"one": 1, "maybe": 2, None: 0}[m["fd"]]
        c.append(f'\t[MSG_{m["name"].upper()}] = {{ "{m["name"]}", {mask(m["from"], roles)},\n\t    {mask(m["to"], roles)}, {fd}, {"true" if m.get("secret") else "false"}, {"true" if "parent" in m["from"] else "false"} }},')
    c.append("};\n")


def switch_out(msgs, c, head, verb, rest):
    """A function that does verb_NAME for the type of message at hand."""
    arg = "c" if verb == "decode" else "b"
    c.append(f"{head}\tswitch (m->type) {{")
    for m in msgs:
        c.append(f"\tcase MSG_{m['name'].upper()}:\n\t\t{verb}_{m['name']}({arg}, &m->{m['name']});\n\t\tbreak;")
    c.append(f"\tcase MSG_NONE:\n\tcase MSG_TYPE_COUNT:\n{rest}")


def switches_out(msgs, c):
    switch_out(msgs, c, "void\nmsg_encode(struct buf *b, const struct msg *m)\n{\n\tbuf_add_u16(b, (uint16_t)m->type);\n\tbuf_add_u32(b, m->id);\n",
               "encode", "\t\tbreak;\n\t}\n}\n")
    switch_out(msgs, c, "void\nmsg_print(struct buf *b, const struct msg *m)\n{\n\tbuf_addf(b, \"%s id=%u\", msg_name(m->type), m->id);\n"
               "\tif (msg_secret(m->type))\n\t\treturn;\n", "print", "\t\tbreak;\n\t}\n}\n")
    switch_out(msgs, c, "int\nmsg_decode(struct slice in, struct msg *m)\n{\n\tstruct cursor cur = cursor(in), *c = &cur;\n\n"
               "\tm->type = (enum msg_type)cursor_u16(c);\n\tm->id = cursor_u32(c);\n\tif (c->err)\n\t\treturn c->err;\n",
               "decode", "\tdefault:\n\t\treturn ERR_SYNTAX;\n\t}\n\treturn cursor_end(c);\n}")


def main():
    msgs_def, roles_def, outdir = sys.argv[1:4]
    roles = read_roles(roles_def)
    if len(roles) > 32:
        fail(roles_def, 1, "more than 32 roles: msgs.c keeps them as bits of 32")
    items, msgs = read_msgs(msgs_def, roles)
    h, c = [HEADER], [SOURCE]

    layout = hashlib.sha256(pathlib.Path(msgs_def).read_bytes() + pathlib.Path(roles_def).read_bytes()).hexdigest()[:16]
    h.append(f'/* Of both tables: peers with another one are refused. */\n#define MSG_LAYOUT "{layout}"\n')
    roles_out(roles, h, c)
    types_out(msgs, h)
    for it in items:
        item_out(it, h, c)
    for m in msgs:
        msg_out(m, h, c)
    union_out(msgs, h)
    h.append(HEADER_END)
    table_out(msgs, roles, c)
    c.append(TABLE_FUNCTIONS)
    switches_out(msgs, c)
    out = pathlib.Path(outdir)
    (out / "msgs.h").write_text("\n".join(h) + "\n")
    (out / "msgs.c").write_text("\n".join(c) + "\n")


main()
