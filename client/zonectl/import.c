/*
 * import.c - replays a trace of Linux's page allocator on a machine.
 *
 *   ftrace or perf script text -> allocations and frees (proto/recordings/kmem_ops.h has the
 *   rules) -> Memory.Run, after LoadState with the state in which the trace begins
 *
 * A frame of the trace is the name of a block and nothing more: what is freed is the frame
 * that this machine gave for it. So a free waits for its allocation's answer, and for
 * nothing else. With the recorded state loaded, frames should be the same ones; how many
 * were is what the summary says.
 *
 * Invariants: answers come in the order of the ops (none of them parks), so waiting[i] is
 * the op with index `answered` + i; blocks[] says of each recorded frame whether its
 * allocation is unanswered, or which frame it got.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "contract.h"
#include "kmem_ops.h"
#include "lines.h"
#include "state_words.h"
#include "zonectl.h"

enum {
	BATCH_OPS = 256,
	IN_FLIGHT = 4096,
	MAX_FRAMES = 1 << 24, /* what 36 bits of address reach */
	CHUNK = 4096,	      /* frames of one piece of the table */
	GFP_KNOWN = 0x7fffff,
	MOST_ORDER = 10,
	NR_IMPORT_ZONES = 4,
	PROGRESS_NS = 200000000,
};

static const struct flag import_flags[] = {
    {"state", 0, "FILE",
     "the exact state at the trace's beginning; default: state-begin.jsonl "
     "in the trace's folder, if it is there"},
    {"fresh", 0, NULL,
     "load no state: frames then differ, and what is freed without having "
     "been allocated in the trace is left out"},
    {"unboost", 0, NULL,
     "take boosts back after every allocation: for a trace without "
     "mm_page_alloc_extfrag events, which say when one may have been given"},
};
enum { NR_IMPORT_FLAGS = sizeof import_flags / sizeof *import_flags };

enum block_state {
	BLOCK_UNKNOWN, /* not allocated in the trace */
	BLOCK_ASKED,   /* its allocation is unanswered */
	BLOCK_HELD,
	BLOCK_FAILED, /* Linux got it and this machine did not */
};

struct block {
	uint32_t ours; /* first frame here */
	uint8_t state; /* enum block_state */
};

struct waiting {
	uint32_t code;
	uint32_t pfn; /* the recorded frame */
};

struct import {
	struct ctl *ctl;
	struct zoned_run *run;
	struct block *chunks[MAX_FRAMES / CHUNK];
	struct waiting *waiting; /* a ring of IN_FLIGHT + what one op may add */
	uint64_t asked, answered;
	bool loaded, unboost;
	uint32_t cpus; /* of the machine */
	int code;

	uint64_t allocs, frees;
	/* Of the allocations: the same frame, another one, or different in having failed. */
	uint64_t same, other, failed_here, failed_there;
	uint64_t unknown_frees, left_out, refused, boosts;
	uint64_t first_difference; /* number of the allocation, from 1; 0: none */
	uint32_t first_theirs, first_ours;

	bool progress;
	uint64_t next_progress, size;
};

enum { RING = IN_FLIGHT * 8 };

static struct block *block_of(struct import *im, uint32_t pfn)
{
	struct block **chunk = &im->chunks[pfn % MAX_FRAMES / CHUNK];

	if (!*chunk)
		*chunk = must(calloc(CHUNK, sizeof **chunk));
	return *chunk + pfn % CHUNK;
}

/* ---- answers ---- */

static void alloc_answered(struct import *im, uint32_t pfn, const Zoned__V1__AllocPagesResult *a)
{
	struct block *b = block_of(im, pfn);
	bool ok = a->outcome && a->outcome->status == ZONED__V1__STATUS__OK;

	if (pfn) {
		b->state = ok ? BLOCK_HELD : BLOCK_FAILED;
		b->ours = a->pfn;
	}
	im->allocs++;
	if (pfn ? ok && a->pfn == pfn : !ok) {
		im->same++;
		return;
	}
	if (!im->first_difference) {
		im->first_difference = im->allocs;
		im->first_theirs = pfn;
		im->first_ours = ok ? a->pfn : 0;
	}
	im->failed_here += !ok;
	im->failed_there += !pfn;
	im->other += ok && pfn;
}

static void on_answer(void *user, uint64_t index, const Zoned__V1__Result *r)
{
	struct import *im = user;
	const struct waiting *w = &im->waiting[index % RING];

	im->answered = index + 1;
	if (r->code || (uint32_t)r->result_case != w->code) {
		if (im->code == EXIT_DONE)
			complain("import: op %llu: %s: %s", (unsigned long long)index,
				 zoned_code_name((int)r->code), r->message);
		im->code = EXIT_REFUSED;
		return;
	}
	if (w->code == OP_ALLOC_PAGES)
		alloc_answered(im, w->pfn, r->alloc_pages);
	else if (w->code == OP_UNBOOST_ZONE)
		im->boosts += r->unboost_zone->boost != 0;
	else if (r->free_pages->outcome)
		im->refused += r->free_pages->outcome->status != ZONED__V1__STATUS__OK;
}

static bool failed(struct import *im, int rc)
{
	if (rc && im->code == EXIT_DONE)
		im->code = ctl_failed(im->ctl, "import", rc);
	return im->code != EXIT_DONE;
}

/* ---- ops ---- */

static void ask(struct import *im, uint32_t code, uint32_t pfn, const ProtobufCMessage *op)
{
	int rc;

	im->waiting[im->asked++ % RING] = (struct waiting){code, pfn};
	rc = zoned_run_add(im->run, code, op);
	if (!rc && zoned_run_filling(im->run) >= BATCH_OPS)
		rc = zoned_run_flush(im->run);
	if (!rc && zoned_run_in_flight(im->run) > IN_FLIGHT)
		rc = zoned_run_wait(im->run, IN_FLIGHT / 2, ZONED_NO_TIMEOUT);
	failed(im, rc);
}

/* An op runs on the CPU that the trace names, on CPU 0 where the machine has no such. */
static Zoned__V1__OpContext *place_op(const struct import *im, const struct kmem_op *k,
				      Zoned__V1__OpContext *context)
{
	zoned__v1__op_context__init(context);
	context->cpu = k->cpu < im->cpus ? k->cpu : 0;
	return context->cpu ? context : NULL;
}

static void unboost_zones(struct import *im)
{
	Zoned__V1__UnboostZone op = ZONED__V1__UNBOOST_ZONE__INIT;

	for (int zone = 0; zone < NR_IMPORT_ZONES; zone++) {
		op.zone = (Zoned__V1__Zone)zone;
		ask(im, OP_UNBOOST_ZONE, 0, &op.base);
	}
}

static void play_alloc(struct import *im, const struct kmem_op *k)
{
	Zoned__V1__AllocPages op = ZONED__V1__ALLOC_PAGES__INIT;
	Zoned__V1__OpContext context;

	op.context = place_op(im, k, &context);
	op.gfp = k->gfp & GFP_KNOWN;
	op.order = k->order;
	if (k->pfn)
		block_of(im, k->pfn)->state = BLOCK_ASKED;
	ask(im, OP_ALLOC_PAGES, k->pfn, &op.base);
	if (k->boosts || im->unboost)
		unboost_zones(im);
}

static void play_free(struct import *im, const struct kmem_op *k)
{
	Zoned__V1__FreePages op = ZONED__V1__FREE_PAGES__INIT;
	Zoned__V1__OpContext context;
	struct block *b = block_of(im, k->pfn);

	op.context = place_op(im, k, &context);
	im->frees++;
	if (b->state == BLOCK_ASKED && !failed(im, zoned_run_flush(im->run)))
		while (b->state == BLOCK_ASKED && im->code == EXIT_DONE) {
			uint64_t in_flight = zoned_run_in_flight(im->run);

			failed(im, zoned_run_wait(im->run, in_flight ? in_flight - 1 : 0,
						  ZONED_NO_TIMEOUT));
		}
	op.pfn = b->ours;
	op.order = k->order;
	if (b->state == BLOCK_UNKNOWN) {
		im->unknown_frees++;
		op.pfn = k->pfn;
	}
	if (b->state == BLOCK_FAILED || (b->state == BLOCK_UNKNOWN && !im->loaded)) {
		im->left_out++;
	} else {
		ask(im, OP_FREE_PAGES, k->pfn, &op.base);
	}
	b->state = BLOCK_UNKNOWN;
}

static void play_decided(struct import *im, struct kmem_ops *k)
{
	struct kmem_op op;

	while (im->code == EXIT_DONE && kmem_ops_next(k, &op)) {
		if (op.order > MOST_ORDER || op.pfn >= MAX_FRAMES)
			im->left_out++;
		else if (op.is_alloc)
			play_alloc(im, &op);
		else
			play_free(im, &op);
	}
}

/* ---- the state in which the trace begins ---- */

static bool send_state(void *user, const uint8_t *data, uint32_t bytes, bool last)
{
	struct import *im = user;
	Zoned__V1__LoadState op = ZONED__V1__LOAD_STATE__INIT;
	ProtobufCMessage *result;
	bool ok;
	int rc;

	op.context = (Zoned__V1__OpContext *)context_new(im->ctl);
	op.last = last;
	op.state = (ProtobufCBinaryData){bytes, (uint8_t *)(uintptr_t)data};
	rc = zoned_op(im->ctl->z, OP_LOAD_STATE, &op.base, im->ctl->timeout_ms, &result);
	message_free(&op.context->base);
	if (failed(im, rc))
		return false;
	ok = op_status(result) == STATUS_OK;
	if (!ok)
		complain("import: the machine refused the state: %s", op_detail(result));
	message_free(result);
	return ok;
}

static int load_state(struct import *im, const char *path)
{
	struct lines *lines = lines_open(path);
	struct state_words *words = must(calloc(1, sizeof *words));
	const char *line;
	unsigned zones = 0;

	words->send = send_state;
	words->user = im;
	while (lines && (line = lines_next(lines))) {
		json_t *object = json_loads(line, 0, NULL);
		const char *type = json_string_value(json_object_get(object, "t"));

		if (type && (strcmp(type, "state") == 0 || strcmp(type, "init") == 0)) {
			state_words_add(words, object);
			zones++;
		}
		json_decref(object);
	}
	if (!lines || !zones) {
		complain("import: %s has no state of a zone", path);
		im->code = EXIT_FILE;
	} else if (!state_words_finish(words) && im->code == EXIT_DONE) {
		complain("import: a state goes into a fresh machine of the same memory map; "
			 "`zonectl machine create --from-dmesg` makes one");
		im->code = EXIT_NOT_OK;
	}
	lines_close(lines);
	free(words);
	im->loaded = im->code == EXIT_DONE;
	return im->code;
}

/* ---- all of it ---- */

static void show_progress(struct import *im, const struct lines *lines)
{
	uint64_t now = im->progress ? monotonic_ns() : 0, at;

	if (now < im->next_progress || !im->progress)
		return;
	im->next_progress = now + PROGRESS_NS;
	at = lines_offset(lines);
	fprintf(stderr, "\r");
	if (im->size)
		fprintf(stderr, "%3llu%%  ", (unsigned long long)(at * 100 / im->size));
	fprintf(stderr, "%llu allocations, %llu of the same frame\033[K",
		(unsigned long long)im->allocs, (unsigned long long)im->same);
}

static void summary(const struct import *im, const struct kmem_counts *c, double seconds)
{
	const struct {
		const char *key, *text;
		uint64_t value;
	} rows[] = {
	    {"events", "events", c->events},
	    {"outside", "  outside the recorded span", c->outside},
	    {"announcements", "  announced a batched free", c->announcements},
	    {"not_understood", "  not understood", c->wrong},
	    {"lost", "  lost by the tracer", c->lost},
	    {"unknown_flags", "  with unknown gfp flags", c->unknown_flags},
	    {"allocations", "allocations", im->allocs},
	    {"same_frame", "  the same frame (or failed alike)", im->same},
	    {"other_frame", "  another frame", im->other},
	    {"failed_here", "  failed here", im->failed_here},
	    {"failed_there", "  failed there", im->failed_there},
	    {"frees", "frees", im->frees},
	    {"unknown_frees", "  of frames from before the trace", im->unknown_frees},
	    {"refused_frees", "  refused", im->refused},
	    {"left_out", "ops left out", im->left_out},
	    {"boosts_taken_back", "boosts taken back at once (rule)", im->boosts},
	    {"drains_not_used", "drains of per-CPU lists, not used", c->drains},
	};
	json_t *object;

	if (im->ctl->json) {
		object = json_object();
		for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
			json_object_set_new(object, rows[i].key,
					    json_integer((json_int_t)rows[i].value));
		json_object_set_new(object, "state_loaded", json_boolean(im->loaded));
		json_object_set_new(object, "first_difference",
				    json_integer((json_int_t)im->first_difference));
		json_print_line(object, stdout);
		json_decref(object);
		return;
	}
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
		printf("%-36s %12llu\n", rows[i].text, (unsigned long long)rows[i].value);
	if (im->first_difference)
		printf("first difference: allocation %llu, frame 0x%x there, 0x%x here\n",
		       (unsigned long long)im->first_difference, im->first_theirs, im->first_ours);
	printf("%.1f s, %.0f ops/s\n", seconds, (double)im->answered / seconds);
}

static int play(struct import *im, const char *path, const struct kmem_span *span)
{
	struct lines *lines = lines_open(path);
	struct kmem_ops *k = must(kmem_ops_new(span));
	uint64_t begin = monotonic_ns();
	const char *line;

	if (!lines) {
		complain("import: %s cannot be read", path);
		im->code = EXIT_FILE;
	}
	while (im->code == EXIT_DONE && (line = lines_next(lines)) && kmem_ops_line(k, line)) {
		play_decided(im, k);
		show_progress(im, lines);
	}
	kmem_ops_end(k);
	play_decided(im, k);
	if (im->code == EXIT_DONE) {
		failed(im, zoned_run_finish(im->run));
		im->run = NULL;
	}
	if (im->progress)
		fprintf(stderr, "\r\033[K");
	if (im->code == EXIT_DONE && lines_broken(lines)) {
		complain("import: %s is cut off or damaged; what was read was played", path);
		im->code = EXIT_FILE;
	}
	if (im->code == EXIT_DONE && !kmem_ops_counts(k)->events) {
		complain(
		    "import: %s has no event of the page allocator: it takes text of ftrace or "
		    "`perf script` with kmem events",
		    path);
		im->code = EXIT_FILE;
	}
	summary(im, kmem_ops_counts(k), (double)(monotonic_ns() - begin) / 1e9);
	kmem_ops_free(k);
	lines_close(lines);
	if (im->code == EXIT_DONE && im->loaded && im->same != im->allocs)
		im->code = EXIT_NOT_OK;
	return im->code;
}

static void ask_cpus(struct import *im)
{
	Zoned__V1__GetRequest request = ZONED__V1__GET_REQUEST__INIT;
	ProtobufCMessage *reply = NULL;
	int rc;

	request.machine = (char *)(uintptr_t)im->ctl->machine;
	rc = zoned_call(im->ctl->z, "/zoned.v1.Machines/Get", &request.base,
			&zoned__v1__machine__descriptor, im->ctl->timeout_ms, &reply);
	if (failed(im, rc))
		return;
	im->cpus = ((Zoned__V1__Machine *)reply)->config->cpus;
	message_free(reply);
}

/* The folder of a trace; false for standard input. */
static bool folder_of(const char *path, char *to, size_t size)
{
	const char *slash = strrchr(path, '/');

	if (strcmp(path, "-") == 0)
		return false;
	snprintf(to, size, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
	return true;
}

static int import(struct ctl *ctl, const char *path, const struct args *a)
{
	struct import *im = must(calloc(1, sizeof *im));
	const char *state = args_text(a, "state");
	char folder[4000], found[4096];
	struct kmem_span span = {0};
	ProtobufCMessage *context;
	struct lines *lines;
	struct stat st;
	int rc = ctl_connect(ctl);

	im->ctl = ctl;
	im->code = rc;
	im->waiting = must(calloc(RING, sizeof *im->waiting));
	im->unboost = args_has(a, "unboost");
	if (rc == EXIT_DONE)
		ask_cpus(im);
	im->progress = isatty(STDERR_FILENO);
	im->size = stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
	/* Of a state given by name the span is beside it too. */
	if (!args_has(a, "fresh") && folder_of(state ? state : path, folder, sizeof folder)) {
		snprintf(found, sizeof found, "%s/state-begin.jsonl", folder);
		lines = state ? NULL : lines_open(found);
		if (lines)
			state = found;
		lines_close(lines);
		if (state && !kmem_span_read(folder, &span))
			span = (struct kmem_span){0};
	}
	if (im->code == EXIT_DONE && state && !args_has(a, "fresh"))
		load_state(im, state);
	if (im->code == EXIT_DONE) {
		context = context_new(ctl);
		rc = zoned_run_open(ctl->z, (Zoned__V1__OpContext *)context, on_answer, im,
				    &im->run);
		message_free(context);
		if (!failed(im, rc))
			play(im, path, &span);
	}
	rc = im->code;
	zoned_run_close(im->run);
	for (unsigned i = 0; i < MAX_FRAMES / CHUNK; i++)
		free(im->chunks[i]);
	free(im->waiting);
	free(im);
	return rc;
}

static void import_help(void)
{
	printf(
	    "zonectl import - replay a trace of Linux's page allocator on a machine\n\n"
	    "usage: zonectl import FILE|- -m MACHINE [flags]\n\n"
	    "FILE is text of ftrace or perf script with the kmem events (mm_page_alloc,\n"
	    "mm_page_free, mm_page_free_batched, mm_page_alloc_extfrag), gzipped or not;\n"
	    "- reads a pipe. If the exact state at its beginning was recorded, it is loaded\n"
	    "into the machine, which must be fresh, and every allocation should get the frame\n"
	    "that Linux gave it. Without, the frames only name the blocks.\n\n"
	    "  zonectl machine create t --from-dmesg traces/686-pae-1G/dmesg\n"
	    "  zonectl import traces/686-pae-1G/kmem.trace.gz -m t\n\n"
	    "What a trace cannot tell is when kswapd took a watermark boost back. The rule: at\n"
	    "once, after the allocation that gave it; the summary says how often. Nor does an op\n"
	    "do what an interrupt does that finds the CPU's lists locked, a statistics' worker,\n"
	    "or a steal from a pageblock of which much is page cache. Where these mattered,\n"
	    "frames differ from there on; `zoned conformance` reads the whole trace, does what\n"
	    "it tells, finds what it does not, and says how often.\n\n"
	    "Exit code 1: a state was loaded, and a frame was another.\n\n");
	print_flags("flags:", import_flags, NR_IMPORT_FLAGS);
	print_flags("\nfor every command:", global_flags, nr_global_flags);
}

int import_command(struct ctl *ctl, int argc, char **argv)
{
	struct args a;
	int rc = args_parse(ctl, "import", argc, argv, import_flags, NR_IMPORT_FLAGS, &a);

	if (rc != EXIT_DONE)
		return rc;
	if (ctl->help) {
		import_help();
		args_free(&a);
		return EXIT_DONE;
	}
	rc = args_limit_words(&a, "import", 1);
	if (rc == EXIT_DONE && !a.nr_words)
		rc = usage_error("import: which file? - is standard input");
	if (rc == EXIT_DONE && args_has(&a, "fresh") && args_has(&a, "state"))
		rc = usage_error("import: --fresh and --state contradict each other");
	if (rc == EXIT_DONE)
		rc = ctl_need_machine(ctl, "import");
	if (rc == EXIT_DONE)
		rc = import(ctl, a.words[0], &a);
	args_free(&a);
	return rc;
}
