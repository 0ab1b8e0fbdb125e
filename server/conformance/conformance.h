/*
 * conformance.h - does this engine do what a recorded Linux did? Plays a recording to a
 * private machine in this process and compares.
 *
 * A recording is a boot folder (dmesg and zoneinfo), a trace or its folder (kmem.trace and
 * state-begin), or a file seq*.jsonl, exhaust.jsonl, kmap.jsonl or const*.jsonl whose
 * folder has a dmesg; each file may be gzipped, and one of another name is what its first
 * lines say. The machine's configuration comes from the dmesg.
 *
 * It lives in the daemon's binary, where an engine is, and not in the tests: anyone who
 * has the binary can check a recording of his own. The tests call the same functions.
 */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#include <stdbool.h>
#include <stdint.h>

enum conformance_kind {
	CONFORMANCE_NONE, /* no recording */
	CONFORMANCE_BOOT,
	CONFORMANCE_TRACE,
	CONFORMANCE_SEQUENCE, /* seq and exhaust */
	CONFORMANCE_KMAP,
	CONFORMANCE_CONST,
};

struct conformance_report {
	uint64_t compared, agreed; /* ops, figures or addresses */
	/* Of a trace: what it took to play its ops in the engine, in nanoseconds. */
	uint64_t play_ns;
	char note[500]; /* what was not compared, and rules that were used */
	/* The first difference: the op, both answers, the shortest prefix. Empty: none. */
	char difference[8192];
};

/* By its name and what is in it. */
enum conformance_kind conformance_kind_of(const char *path);
/* True: it agrees in all that was compared, and something was. */
bool conformance_check(const char *path, enum conformance_kind kind,
		       struct conformance_report *ret);

/* `zoned conformance PATH...`: argv[0] is "conformance". Returns the exit code. */
int conformance_command(int argc, char **argv);

#endif
