#!/usr/bin/python3
"""Turns the compiled contract into plain C tables.

    generate.py DESCRIPTOR_SET WORDS OUT_DIR

WORDS is proto/words.txt. DESCRIPTOR_SET is `protoc --include_imports --include_source_info`'s output.
Writes, for each room what it may see:

  contract.h          enums, op codes, event kinds; freestanding (engine, guest)
  contract_events.h   two emit functions per event kind; freestanding
  contract_tables.[ch] every op, event, inspection and enum by name, with
                      ranges, units and the .proto's own words; no protobuf
  contract_protobuf.[ch] op code -> protobuf-c descriptors; the file descriptors
                      for reflection (rpc, client)

Shapes that the tables cannot express (a seventh argument, a nested message in a
result) are errors here, at build time; and so is whatever has no words that say what
it means.
"""
import re
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

F = descriptor_pb2.FieldDescriptorProto
INTEGERS = {F.TYPE_UINT32: 32, F.TYPE_INT32: 32, F.TYPE_ENUM: 32, F.TYPE_BOOL: 1,
            F.TYPE_UINT64: 64}
KIND = {F.TYPE_UINT32: "FIELD_U32", F.TYPE_INT32: "FIELD_I32", F.TYPE_UINT64: "FIELD_U64",
        F.TYPE_ENUM: "FIELD_ENUM", F.TYPE_BOOL: "FIELD_BOOL"}
MAX_ARGS, MAX_VALUES, EVENT_WORDS = 6, 4, 6
# C names of enum values: PROT_ and MAP_ belong to <sys/mman.h>, and bare words
# such as OK or SIM to nobody.
C_NAME = {"Status": lambda v: "STATUS_" + v, "Sysctl": lambda v: "SYSCTL_" + v,
          "Preset": lambda v: "PRESET_" + v, "Backend": lambda v: "BACKEND_" + v,
          "Direction": lambda v: "MEMBLOCK_" + v,
          "Prot": lambda v: v.replace("PROT_", "UPROT_"),
          "MapFlag": lambda v: v.replace("MAP_", "UMAP_")}


def snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def c_string(text):
    out = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + out + '"'


def die(what):
    sys.exit(f"generate.py: {what}")


def read_words(path):
    """What names mean wherever they occur."""
    words = {}
    for line in Path(path).read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        name, colon, text = line.partition(": ")
        if not colon or name in words:
            die(f"{path}: {line!r}")
        words[name] = text
    return words


class Contract:
    def __init__(self, path, words):
        self.words = read_words(words)
        self.wordless = set()  # (message, field) that leave their words to the file
        self.files = descriptor_pb2.FileDescriptorSet.FromString(Path(path).read_bytes()).file
        pool = descriptor_pool.DescriptorPool()
        for f in self.files:
            pool.Add(f)
        factory = message_factory.MessageFactory(pool)
        self.extension = {n: pool.FindExtensionByName("zoned.v1." + n)
                          for n in ("op", "event", "inspect", "arg")}
        self.options = {k: factory.GetPrototype(pool.FindMessageTypeByName("google.protobuf." + k))
                        for k in ("MessageOptions", "FieldOptions")}
        self.docs, self.messages, self.enums, self.services = {}, {}, {}, {}
        for f in self.files:
            if not f.package.startswith(("zoned.", "grpc.")):
                continue
            self.read_docs(f)
            for m in f.message_type:
                self.messages[f"{f.package}.{m.name}"] = m
                for nested in m.enum_type:
                    self.enums[f"{f.package}.{m.name}.{nested.name}"] = nested
            for e in f.enum_type:
                self.enums[f"{f.package}.{e.name}"] = e
            for s in f.service:
                self.services[f"{f.package}.{s.name}"] = s

    def read_docs(self, f):
        """Leading comments, by the full name of what they lead."""
        for loc in f.source_code_info.location:
            text = " ".join(l.strip() for l in loc.leading_comments.strip().split("\n"))
            p = list(loc.path)
            if not text:
                continue
            if len(p) in (4, 6) and p[0] == 4 and p[2] == 4:
                e = f.message_type[p[1]].enum_type[p[3]]
                name = f"{f.package}.{f.message_type[p[1]].name}.{e.name}"
                if len(p) == 6 and p[4] == 2:
                    name += "." + e.value[p[5]].name
                self.docs[name] = text
            elif len(p) in (2, 4) and p[0] == 4:
                m = f.message_type[p[1]]
                name = f"{f.package}.{m.name}"
                if len(p) == 4 and p[2] == 2:
                    name += "." + m.field[p[3]].name
                self.docs[name] = text
            elif len(p) in (2, 4) and p[0] == 5:
                e = f.enum_type[p[1]]
                name = f"{f.package}.{e.name}"
                if len(p) == 4 and p[2] == 2:
                    name += "." + e.value[p[3]].name
                self.docs[name] = text

    def doc(self, full):
        """What the contract says of an op, event, inspection, enum or value."""
        if not self.docs.get(full):
            die(f"{full} has no words (a comment before it)")
        return self.docs[full]

    def field_doc(self, full, name):
        """A field's own words: it may leave them to words.txt."""
        if f"{full}.{name}" not in self.docs and name not in self.words:
            die(f"{full}.{name} has no words, and words.txt has none for its name")
        if f"{full}.{name}" not in self.docs:
            self.wordless.add((full, name))
        return self.docs.get(f"{full}.{name}", "")

    def complete_comments(self):
        """What reflection hands out has the words of words.txt as comments, too."""
        for f in self.files:
            for i, m in enumerate(f.message_type):
                for j, field in enumerate(m.field):
                    if (f"{f.package}.{m.name}", field.name) in self.wordless:
                        f.source_code_info.location.add(
                            path=[4, i, 2, j], leading_comments=f" {self.words[field.name]}\n")

    def option(self, owner, name):
        kind = "FieldOptions" if isinstance(owner, F) else "MessageOptions"
        return self.options[kind].FromString(owner.options.SerializeToString()).Extensions[
            self.extension[name]]

    def has_option(self, owner, name):
        kind = "FieldOptions" if isinstance(owner, F) else "MessageOptions"
        return self.options[kind].FromString(owner.options.SerializeToString()).HasExtension(
            self.extension[name])

    def oneof(self, message, oneof_name):
        m = self.messages[message]
        index = [o.name for o in m.oneof_decl].index(oneof_name)
        return [f for f in m.field if f.HasField("oneof_index") and f.oneof_index == index]

    def fields(self, message, limit, skip_first):
        """(integer fields, data field or None) of an op, result, question or row."""
        m = self.messages[message]
        ints, data = [], None
        for f in m.field:
            if skip_first and f.number == 1:
                continue
            repeated = f.label == F.LABEL_REPEATED
            if f.type == F.TYPE_BYTES or (repeated and f.type == F.TYPE_UINT32):
                if data is not None:
                    die(f"{message}: two data fields")
                data = f
            elif f.type in INTEGERS and not repeated:
                ints.append(f)
            else:
                die(f"{message}.{f.name}: not an integer, bytes or a list of uint32")
        if len(ints) > limit:
            die(f"{message}: {len(ints)} integers, {limit} fit")
        return ints, data


def c_value(enum_name, value_name):
    return C_NAME.get(enum_name, lambda v: v)(value_name)


# What any op may answer with these before its own function is called.
ANY_OP = {"INVALID": " Or no such CPU.", "NOT_FOUND": " Or no such task.",
          "BUSY": " Or the task sleeps."}

HEAD = "/* Generated from proto/ by proto/generate.py. Not to be edited. */\n"


def write_contract_h(c, ops, out):
    t = [HEAD, "#ifndef ZONED_CONTRACT_H", "#define ZONED_CONTRACT_H", ""]
    shared = [(n, e) for n, e in c.enums.items()
              if n.startswith("zoned.v1.") and n.count(".") == 2]
    for full, e in shared:
        name = full.split(".")[-1]
        if name in ("EventKind", "MachineState"):
            continue
        # The tag is prefixed: `struct zone` is the engine's.
        t.append(f"enum contract_{snake(name)} {{")
        for v in e.value:
            t.append(f"\t{c_value(name, v.name)} = {v.number:#x},")
        t.append("};\n")
    t.append("enum event_kind {")
    for v in c.enums["zoned.v1.EventKind"].value:
        t.append(f"\t{v.name} = {v.number},")
    last = max(v.number for v in c.enums["zoned.v1.EventKind"].value)
    t.append(f"\tEVENT_KIND_END = {last + 1},\n}};\n")
    t.append("enum op_code {")
    for name, info in ops:
        t.append(f"\tOP_{snake(name).upper()} = {info.code},")
    t.append(f"\tOP_CODE_END = {max(i.code for _, i in ops) + 1},\n}};\n")
    t.append("/* Questions of Machines.Inspect, and the rows of their reports: number of the")
    t.append(" * row's list in the report, and how many values a row has. */")
    t.append("enum inspect_code {")
    questions = c.oneof("zoned.v1.InspectRequest", "question")
    for f in questions:
        t.append(f"\tINSPECT_{f.name.upper()} = {f.number},")
    t.append("};\n")
    for f in questions:
        report = f.type_name[1:] + "Report"
        t.append("enum {")
        for r in c.messages[report].field:
            n = len(c.messages[r.type_name[1:]].field)
            base = f"ROW_{f.name.upper()}_{r.name.upper()}"
            t.append(f"\t{base} = {r.number}, {base}_N = {n},")
        t.append("};\n")
    notable = 0
    for v in c.enums["zoned.v1.EventKind"].value:
        if v.number and c.option(c.messages["zoned.v1." + event_message(v.name)], "event").notable:
            notable |= 1 << v.number
    t.append(f"#define EVENTS_NOTABLE {notable:#x}ULL")
    t.append(f"#define EVENTS_ALL {(1 << (last + 1)) - 2:#x}ULL\n")
    t.append(f"enum {{ OP_ARGS = {MAX_ARGS}, OP_VALUES = {MAX_VALUES}, EVENT_WORDS = {EVENT_WORDS} }};")
    t.append("\n#endif")
    (out / "contract.h").write_text("\n".join(t) + "\n")


def event_message(kind):
    return "Event" + "".join(w.capitalize() for w in kind[len("EVENT_"):].split("_"))


def events(c):
    for v in c.enums["zoned.v1.EventKind"].value:
        if v.number == 0:
            continue
        name = event_message(v.name)
        full = "zoned.v1." + name
        if full not in c.messages:
            die(f"{v.name}: no message {name}")
        ints, data = c.fields(full, EVENT_WORDS, False)
        words = sum(2 if f.type == F.TYPE_UINT64 else 1 for f in ints)
        if data is not None or words > EVENT_WORDS:
            die(f"{name}: {words} words, {EVENT_WORDS} fit")
        yield v, name, full, ints


def write_events_h(c, out):
    t = [HEAD, "#ifndef ZONED_CONTRACT_EVENTS_H", "#define ZONED_CONTRACT_EVENTS_H", "",
         '#include "event.h"', ""]
    for v, name, _, ints in events(c):
        params, words = [], []
        for f in ints:
            if f.type == F.TYPE_UINT64:
                params.append(f"u64 {f.name}")
                words += [f"(u32){f.name}", f"(u32)({f.name} >> 32)"]
            else:
                params.append(f"u32 {f.name}")
                words.append(f.name)
        words += ["0"] * (EVENT_WORDS - len(words))
        name = v.name.lower()
        t.append(f"static inline bool {name}_fills(struct engine *e, {', '.join(params)})")
        t.append("{")
        t.append(f"\treturn event_wanted(e, {v.name}) &&")
        t.append(f"\t       event_put(e, {v.name}, {', '.join(words)});")
        t.append("}\n")
        t.append(f"static inline void {name}(struct engine *e, {', '.join(params)})")
        t.append("{")
        t.append(f"\tif ({name}_fills(e, {', '.join(f.name for f in ints)}))")
        t.append("\t\tport_events(e);")
        t.append("}\n")
    t.append("#endif")
    (out / "contract_events.h").write_text("\n".join(t) + "\n")


class Tables:
    """contract_tables.c, built bottom up: enums, then fields, then messages."""

    def __init__(self, c):
        self.c, self.lines, self.count = c, [], 0
        self.enum_index = {}

    def enums(self):
        rows = []
        for full, e in self.c.enums.items():
            if not full.startswith("zoned.v1."):
                continue
            ident = full[len("zoned.v1."):].replace(".", "_")
            self.enum_index[full] = len(rows)
            self.lines.append(f"static const struct contract_value values_{ident}[] = {{")
            for v in e.value:
                doc = self.value_doc(full, e, v)
                self.lines.append(f"\t{{{c_string(v.name)}, {v.number:#x}u, {c_string(doc)}}},")
            self.lines.append("};\n")
            rows.append(f"\t{{{c_string(full[len('zoned.v1.'):])}, values_{ident}, {len(e.value)}, "
                        f"{c_string(self.c.doc(full))}}},")
        self.lines.append("const struct contract_enum contract_enums[] = {")
        self.lines += rows
        self.lines.append("};")
        self.lines.append(f"const unsigned contract_nr_enums = {len(rows)};\n")

    def value_doc(self, full, e, v):
        if e.name == "EventKind" and v.number:
            return self.c.doc("zoned.v1." + event_message(v.name))
        return self.c.doc(f"{full}.{v.name}")

    def enum_ref(self, full):
        return f"&contract_enums[{self.enum_index[full]}]"

    def field(self, full, f):
        a = self.c.option(f, "arg")
        kind = KIND.get(f.type, "FIELD_BYTES")
        if f.label == F.LABEL_REPEATED:
            kind = "FIELD_U32_LIST"
        limit = a.max
        enums = ["NULL", "NULL"]
        if f.type == F.TYPE_ENUM:
            name = f.type_name[1:]
            enums[0] = self.enum_ref(name)
            limit = limit or max(v.number for v in self.c.enums[name].value)
        for i, name in enumerate(a.flags.split()):
            enums[i] = self.enum_ref("zoned.v1." + name)
        if not limit:
            limit = {"FIELD_BOOL": 1, "FIELD_U64": 2**64 - 1}.get(kind, 2**32 - 1)
        length = a.max_length or (16384 if kind == "FIELD_U32_LIST" else 65536)
        doc = self.c.field_doc(full, f.name)
        return (f"{{{c_string(f.name)}, {f.number}, {kind}, {c_string(a.unit)}, {a.min:#x}u, {limit:#x}u, "
                f"{{{', '.join(enums)}}}, {'true' if a.flags else 'false'}, "
                f"{'true' if a.required else 'false'}, {length}, {self.thing(a)}, "
                f"{c_string(a.extent)}, {c_string(doc)}}}")

    def thing(self, a):
        things = {v.number: v.name for v in self.c.enums["zoned.v1.Thing"].value}
        return things[a.thing]

    def field_array(self, full, ints, data=None):
        """Returns the initializer of a struct contract_fields."""
        ident = f"fields_{self.count}"
        self.count += 1
        both = ints + ([data] if data is not None else [])
        if not both:
            return "{NULL, 0, NULL}"
        self.lines.append(f"/* {full} */")
        self.lines.append(f"static const struct contract_field {ident}[] = {{")
        for f in both:
            self.lines.append(f"\t{self.field(full, f)},")
        self.lines.append("};\n")
        data_ref = f"&{ident}[{len(ints)}]" if data is not None else "NULL"
        return f"{{{ident if ints else 'NULL'}, {len(ints)}, {data_ref}}}"

    def answers(self, name, info):
        """Returns the initializer of an op's statuses and their number."""
        statuses = {v.name: v.number for v in self.c.enums["zoned.v1.Status"].value}
        if not info.answer:
            return "NULL, 0"
        self.lines.append(f"static const struct contract_answer answers_{name}[] = {{")
        for a in info.answer:
            if statuses.get(a.status, 0) == 0:
                die(f"{name}: no status {a.status}")
            self.lines.append(f"\t{{{statuses[a.status]}, {c_string(a.why + ANY_OP.get(a.status, ''))}}},")
        self.lines.append("};\n")
        return f"answers_{name}, {len(info.answer)}"

    def check_things(self, full):
        """What names a thing is annotated, and extents are fields of the op."""
        m, result = self.c.messages[full], self.c.messages[full + "Result"]
        for f in list(m.field) + list(result.field):
            a = self.c.option(f, "arg")
            if a.extent and a.extent not in [x.name for x in m.field]:
                die(f"{full}: no field {a.extent} for the extent of {f.name}")
            if f in list(m.field) and a.unit in ("pfn", "va") and not a.thing:
                die(f"{full}.{f.name}: of what thing is it the name? Say (arg).thing")

    def ops(self, ops):
        rows = []
        for name, info in ops:
            full = "zoned.v1." + name
            self.check_things(full)
            args = self.field_array(full, *self.c.fields(full, MAX_ARGS, True))
            values = self.field_array(full + "Result",
                                      *self.c.fields(full + "Result", MAX_VALUES, True))
            answers = self.answers(snake(name), info)
            rows.append(f"\t[{info.code}] = {{{info.code}, {c_string(name)}, {c_string(snake(name))}, "
                        f"{c_string(info.word)}, {args}, {values}, {answers}, "
                        f"{c_string(self.c.doc(full))}}},")
        self.lines.append("const struct contract_op contract_ops[OP_CODE_END] = {")
        self.lines += rows
        self.lines.append("};\n")

    def why(self):
        self.lines.append("const char *contract_why(uint32_t code, uint32_t status)")
        self.lines.append("{")
        self.lines.append(f"\tconst struct contract_enum *statuses = "
                          f"{self.enum_ref('zoned.v1.Status')};\n")
        self.lines.append("""\tfor (unsigned i = 0; code < OP_CODE_END && i < contract_ops[code].nr_answers; i++)
		if (contract_ops[code].answers[i].status == status)
			return contract_ops[code].answers[i].why;
	for (unsigned i = 0; i < statuses->nr_values; i++)
		if (statuses->values[i].number == status)
			return statuses->values[i].doc;
	return "";
}
""")

    def split(self):
        self.lines.append("uint32_t contract_split(const char *name)")
        self.lines.append("{")
        self.lines.append(f"\tconst struct contract_enum *splits = "
                          f"{self.enum_ref('zoned.v1.Split')};\n")
        self.lines.append("""\tfor (unsigned i = 0; i < splits->nr_values; i++)
		if (splits->values[i].number &&
		    strcasecmp(splits->values[i].name + sizeof "SPLIT_" - 1, name) == 0)
			return splits->values[i].number << 20;
	return 0;
}
""")

    def events(self):
        rows = []
        for v, name, full, ints in events(self.c):
            fields = self.field_array(full, ints)
            info = self.c.option(self.c.messages[full], "event")
            rows.append(f"\t[{v.number}] = {{{v.number}, {c_string(name)}, "
                        f"{c_string(v.name[len('EVENT_'):].lower())}, "
                        f"{'true' if info.notable else 'false'}, {fields}, "
                        f"{c_string(self.c.doc(full))}}},")
        self.lines.append("const struct contract_event contract_events[EVENT_KIND_END] = {")
        self.lines += rows
        self.lines.append("};\n")

    def inspections(self):
        rows = []
        for f in self.c.oneof("zoned.v1.InspectRequest", "question"):
            full = f.type_name[1:]
            info = self.c.option(self.c.messages[full], "inspect")
            args = self.field_array(full, *self.c.fields(full, MAX_ARGS, False))
            lists = []
            for r in self.c.messages[full + "Report"].field:
                row = r.type_name[1:]
                cols = self.field_array(row, *self.c.fields(row, 32, False))
                lists.append(f"\t{{{c_string(r.name)}, {r.number}, {cols}}},")
            self.lines.append(f"static const struct contract_rows rows_{f.name}[] = {{")
            self.lines += lists
            self.lines.append("};\n")
            rows.append(f"\t{{{f.number}, {c_string(f.name)}, {c_string(info.word)}, {args}, "
                        f"rows_{f.name}, {len(lists)}, {c_string(self.c.doc(full))}}},")
        self.lines.append("const struct contract_inspection contract_inspections[] = {")
        self.lines += rows
        self.lines.append("};")
        self.lines.append(f"const unsigned contract_nr_inspections = {len(rows)};\n")

    def machine_config(self):
        full = "zoned.v1.MachineConfig"
        ints = [f for f in self.c.messages[full].field
                if f.type in INTEGERS and f.label != F.LABEL_REPEATED]
        fields = self.field_array(full, ints)
        self.lines.append(f"const struct contract_fields contract_machine_config = {fields};\n")

    def docs(self):
        rows = sorted((n[len("zoned.v1."):], d) for n, d in self.c.docs.items()
                      if n.startswith("zoned.v1."))
        self.lines.append("const struct contract_doc contract_docs[] = {")
        self.lines += [f"\t{{{c_string(n)}, {c_string(d)}}}," for n, d in rows]
        self.lines.append("};")
        self.lines.append(f"const unsigned contract_nr_docs = {len(rows)};\n")

    def words(self):
        rows = sorted(self.c.words.items())
        self.lines.append("const struct contract_doc contract_words[] = {")
        self.lines += [f"\t{{{c_string(n)}, {c_string(d)}}}," for n, d in rows]
        self.lines.append("};")
        self.lines.append(f"const unsigned contract_nr_words = {len(rows)};\n")
        self.lines.append("""static int compare_word(const void *name, const void *word)
{
	return strcmp(name, ((const struct contract_doc *)word)->name);
}

const char *contract_word(const char *name)
{
	const struct contract_doc *word = bsearch(name, contract_words, contract_nr_words,
						  sizeof *contract_words, compare_word);

	return word ? word->doc : "";
}

const char *contract_field_doc(const struct contract_field *f)
{
	return *f->doc ? f->doc : contract_word(f->name);
}
""")


TABLES_H = HEAD + """
#ifndef ZONED_CONTRACT_TABLES_H
#define ZONED_CONTRACT_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "contract.h"

struct contract_value {
	const char *name;
	uint32_t number;
	const char *doc;
};

struct contract_enum {
	const char *name;
	const struct contract_value *values;
	unsigned nr_values;
	const char *doc;
};

enum contract_field_kind {
	FIELD_U32,
	FIELD_I32,
	FIELD_U64,
	FIELD_ENUM,
	FIELD_BOOL,
	FIELD_BYTES,
	FIELD_U32_LIST,
};

struct contract_field {
	const char *name;
	unsigned number; /* in the message */
	enum contract_field_kind kind;
	const char *unit; /* bytes, pages, pfn, paddr, va, kib, or "" */
	uint64_t min, max; /* of an integer, or of each element */
	const struct contract_enum *enums[2]; /* of an enum or of flags; else NULL */
	bool is_flags;
	bool required;
	uint32_t max_length; /* of bytes, in bytes; of a list, in elements */
	enum contract_thing thing; /* what it names or makes */
	const char *extent; /* how far that reaches: the op's field, or "" */
	const char *doc;
};

/* Fields that travel as integers, in order, and the one that travels as data. */
struct contract_fields {
	const struct contract_field *ints;
	unsigned nr_ints;
	const struct contract_field *data;
};

/* A status other than OK, and what it means of this op. */
struct contract_answer {
	uint32_t status;
	const char *why;
};

struct contract_op {
	uint32_t code; /* 0: no such op */
	const char *name; /* AllocPages */
	const char *snake; /* alloc_pages */
	const char *word; /* alloc */
	struct contract_fields args, values;
	const struct contract_answer *answers;
	unsigned nr_answers;
	const char *doc;
};

struct contract_event {
	uint32_t kind; /* 0: no such event */
	const char *message; /* EventAlloc */
	const char *name; /* alloc */
	bool notable;
	struct contract_fields fields; /* a FIELD_U64 takes two words of the record */
	const char *doc;
};

struct contract_rows {
	const char *name;
	uint32_t type;
	struct contract_fields columns;
};

struct contract_inspection {
	uint32_t code;
	const char *name; /* frame_map */
	const char *word; /* frame-map */
	struct contract_fields args;
	const struct contract_rows *rows;
	unsigned nr_rows;
	const char *doc;
};

/* What the .proto says of a message, field, enum or value: its leading comment. */
struct contract_doc {
	const char *name; /* MachineConfig.ram */
	const char *doc;
};

/* What a status means of an op: its own words for it, else the status's. Never NULL. */
const char *contract_why(uint32_t code, uint32_t status);

/* The page offset that a split's name (3G_OPT) stands for, in any case; 0: none does. */
uint32_t contract_split(const char *name);
#define CONTRACT_SPLIT_NAMES @SPLITS@

/* Indexed by op code and event kind. */
extern const struct contract_op contract_ops[OP_CODE_END];
extern const struct contract_event contract_events[EVENT_KIND_END];
extern const struct contract_inspection contract_inspections[];
extern const unsigned contract_nr_inspections;
extern const struct contract_enum contract_enums[];
extern const unsigned contract_nr_enums;
/* The integer fields of MachineConfig; its lists (e820, reserved) are not among them. */
extern const struct contract_fields contract_machine_config;
/* Sorted by name. */
extern const struct contract_doc contract_docs[];
extern const unsigned contract_nr_docs;

/* What a field or column of a name means where it has no words of its own, by name. */
extern const struct contract_doc contract_words[];
extern const unsigned contract_nr_words;
const char *contract_word(const char *name); /* "": none */
/* What a field means: its own words, or those of its name. */
const char *contract_field_doc(const struct contract_field *f);

#endif
"""

PROTOBUF_H = HEAD + """
#ifndef ZONED_CONTRACT_PROTOBUF_H
#define ZONED_CONTRACT_PROTOBUF_H

#include <protobuf-c/protobuf-c.h>

#include "contract.h"

struct contract_op_messages {
	const ProtobufCMessageDescriptor *op;
	const ProtobufCMessageDescriptor *result;
};
/* Indexed by op code; both NULL where there is no such op. */
extern const struct contract_op_messages contract_op_messages[OP_CODE_END];

struct contract_inspect_messages {
	uint32_t code;
	const ProtobufCMessageDescriptor *question;
	const ProtobufCMessageDescriptor *report;
};
/* In the order of contract_inspections. */
extern const struct contract_inspect_messages contract_inspect_messages[];

/* A compiled .proto file, for reflection. */
struct contract_file {
	const char *name;
	const unsigned char *bytes; /* a serialized FileDescriptorProto */
	unsigned length;
	const unsigned *imports; /* indexes into contract_files */
	unsigned nr_imports;
};
extern const struct contract_file contract_files[];
extern const unsigned contract_nr_files;

/* Every message, enum, field, service and method by its full name, sorted. */
struct contract_symbol {
	const char *name;
	unsigned file;
};
extern const struct contract_symbol contract_symbols[];
extern const unsigned contract_nr_symbols;

/* Full names of the services. */
extern const char *const contract_services[];
extern const unsigned contract_nr_services;

#endif
"""


def c_message(full):
    return "__".join(snake(p) for p in full.split("."))


def write_protobuf(c, ops, out):
    t = [HEAD, '#include "contract_protobuf.h"', ""]
    for name in ("ops", "memory", "machines", "history", "inspect"):
        t.append(f'#include "zoned/v1/{name}.pb-c.h"')
    t.append("\nconst struct contract_op_messages contract_op_messages[OP_CODE_END] = {")
    for name, info in ops:
        m = c_message("zoned.v1." + name)
        r = c_message("zoned.v1." + name + "Result")
        t.append(f"\t[{info.code}] = {{&{m}__descriptor, &{r}__descriptor}},")
    t.append("};\n\nconst struct contract_inspect_messages contract_inspect_messages[] = {")
    for f in c.oneof("zoned.v1.InspectRequest", "question"):
        m = c_message(f.type_name[1:])
        t.append(f"\t{{{f.number}, &{m}__descriptor, &{m}_report__descriptor}},")
    t.append("};\n")
    index = {f.name: i for i, f in enumerate(c.files)}
    rows, symbols = [], []
    for i, f in enumerate(c.files):
        bare = descriptor_pb2.FileDescriptorProto()
        bare.CopyFrom(f)
        # Of the source, the comments: what reflection's clients show as documentation.
        bare.ClearField("source_code_info")
        bare.source_code_info.location.extend(
            loc for loc in f.source_code_info.location
            if loc.leading_comments and f.package == "zoned.v1")
        blob = bare.SerializeToString()
        t.append(f"static const unsigned char file_{i}[] = {{")
        for at in range(0, len(blob), 24):
            t.append("\t" + "".join(f"{b}," for b in blob[at:at + 24]))
        t.append("};")
        imports = ", ".join(str(index[d]) for d in f.dependency) or "0"
        t.append(f"static const unsigned imports_{i}[] = {{{imports}}};\n")
        rows.append(f"\t{{{c_string(f.name)}, file_{i}, sizeof file_{i}, imports_{i}, "
                    f"{len(f.dependency)}}},")
        symbols += [(s, i) for s in file_symbols(f)]
    t.append("const struct contract_file contract_files[] = {")
    t += rows
    t.append(f"}};\nconst unsigned contract_nr_files = {len(rows)};\n")
    t.append("const struct contract_symbol contract_symbols[] = {")
    for s, i in sorted(set(symbols)):
        t.append(f"\t{{{c_string(s)}, {i}}},")
    t.append(f"}};\nconst unsigned contract_nr_symbols = {len(set(symbols))};\n")
    t.append("const char *const contract_services[] = {")
    for s in sorted(c.services):
        t.append(f"\t{c_string(s)},")
    t.append(f"}};\nconst unsigned contract_nr_services = {len(c.services)};")
    (out / "contract_protobuf.c").write_text("\n".join(t) + "\n")
    (out / "contract_protobuf.h").write_text(PROTOBUF_H)


def file_symbols(f):
    def of_message(m, prefix):
        full = f"{prefix}.{m.name}"
        yield full
        for x in m.field:
            yield f"{full}.{x.name}"
        for x in m.nested_type:
            yield from of_message(x, full)
        for x in m.enum_type:
            yield f"{full}.{x.name}"
    for m in f.message_type:
        yield from of_message(m, f.package)
    for e in f.enum_type:
        yield f"{f.package}.{e.name}"
    for x in f.extension:
        yield f"{f.package}.{x.name}"
    for s in f.service:
        yield f"{f.package}.{s.name}"
        for m in s.method:
            yield f"{f.package}.{s.name}.{m.name}"


def check_op_lists(c, ops):
    """The oneofs and the service hold exactly the annotated ops, by number."""
    want = {snake(n): i.code for n, i in ops}
    for message, oneof in (("Op", "op"), ("Result", "result")):
        have = {f.name: f.number for f in c.oneof("zoned.v1." + message, oneof)}
        if have != want:
            die(f"{message}.{oneof} and the annotated ops differ: {set(have.items()) ^ set(want.items())}")
    methods = {m.name for m in c.services["zoned.v1.Memory"].method} - {"Run", "Status"}
    if methods != {n for n, _ in ops}:
        die(f"Memory's methods and the ops differ: {methods ^ {n for n, _ in ops}}")


def main():
    c = Contract(sys.argv[1], sys.argv[2])
    out = Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    ops = sorted(((n.split(".")[-1], c.option(m, "op")) for n, m in c.messages.items()
                  if n.startswith("zoned.v1.") and c.has_option(m, "op")), key=lambda x: x[1].code)
    if len({i.code for _, i in ops}) != len(ops) or len({i.word for _, i in ops}) != len(ops):
        die("two ops share a code or a word")
    check_op_lists(c, ops)
    write_contract_h(c, ops, out)
    write_events_h(c, out)
    t = Tables(c)
    t.enums()
    t.ops(ops)
    t.why()
    t.split()
    t.events()
    t.inspections()
    t.machine_config()
    t.docs()
    t.words()
    c.complete_comments()
    splits = [v.name.removeprefix("SPLIT_") for v in c.enums["zoned.v1.Split"].value if v.number]
    (out / "contract_tables.h").write_text(TABLES_H.replace("@SPLITS@", c_string(", ".join(splits))))
    (out / "contract_tables.c").write_text(
        HEAD + '\n#include "contract_tables.h"\n\n#include <stdlib.h>\n#include <string.h>\n'
        "#include <strings.h>\n\n" + "\n".join(t.lines))
    write_protobuf(c, ops, out)


main()
