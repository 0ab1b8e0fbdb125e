/*
 * map_load.c - asks a machine for what `zonectl map` draws, as it is or was at one moment.
 */
#include <stdlib.h>
#include <string.h>

#include "map.h"

enum { MAX_EXACT_RUNS = 4000000 };

/* Asks; a frame map from a frame on, runs shorter than grain merged; a task's maps. */
static int ask_from(struct picture *p, const char *word, uint32_t first, uint64_t grain,
		    Zoned__V1__InspectResponse **ret)
{
	const struct contract_inspection *i = inspection_by_word(word);
	int rc;

	for (;;) {
		ProtobufCMessage *question =
		    message_new(contract_inspect_messages[i - contract_inspections].question);

		if (question->descriptor == &zoned__v1__frame_map__descriptor) {
			((Zoned__V1__FrameMap *)question)->first = first;
			((Zoned__V1__FrameMap *)question)->grain = (uint32_t)grain;
			((Zoned__V1__FrameMap *)question)->blocks = p->blocks;
		}
		if (question->descriptor == &zoned__v1__maps__descriptor)
			((Zoned__V1__Maps *)question)->task = first;
		rc = inspect_ask(p->ctl, i, question, ret);
		if (rc != EXIT_DONE)
			return rc;
		if (!p->has_op)
			p->op = (*ret)->op;
		p->has_op = true;
		if (!p->of_one_op || (*ret)->op == p->op || p->ctl->has_at)
			return EXIT_DONE;
		message_free(&(*ret)->base);
		p->ctl->has_at = true;
		p->ctl->at = p->op;
	}
}

static int ask(struct picture *p, const char *word, Zoned__V1__InspectResponse **ret)
{
	*ret = NULL;
	return ask_from(p, word, 0, 0, ret);
}

static void keep_runs(struct picture *p, const Zoned__V1__FrameMapReport *report)
{
	size_t i;

	p->runs = must(realloc(p->runs, (p->nr_runs + report->n_runs + 1) * sizeof *p->runs));
	for (i = 0; i < report->n_runs; i++)
		p->runs[p->nr_runs++] = *report->runs[i];
}

/* Exact if it fits into one message, or has to be; else merged. In as many messages as it
 * takes. */
static int load_frames(struct picture *p, bool exact)
{
	Zoned__V1__InspectResponse *r;
	uint64_t grain = 0;
	uint32_t next = 0;
	int rc = ask_from(p, "frame-map", 0, 0, &r);

	if (rc == EXIT_DONE && r->truncated && !exact) {
		message_free(&r->base);
		p->about = true;
		grain = (p->cell + 7) / 8;
		rc = ask_from(p, "frame-map", 0, grain, &r);
	}
	while (rc == EXIT_DONE) {
		const Zoned__V1__FrameMapReport *report = r->frame_map;
		bool more = r->truncated && report && report->n_runs;

		if (report)
			keep_runs(p, report);
		if (more)
			next = report->runs[report->n_runs - 1]->first +
			       report->runs[report->n_runs - 1]->count;
		message_free(&r->base);
		if (!more)
			break;
		if (p->nr_runs > MAX_EXACT_RUNS) {
			complain("map: memory is in more than %d pieces", MAX_EXACT_RUNS);
			return EXIT_REFUSED;
		}
		rc = ask_from(p, "frame-map", next, grain, &r);
	}
	return rc;
}

static uint64_t spanned_frames(const struct picture *p)
{
	const Zoned__V1__ZoneinfoReport *z = p->zones->zoneinfo;
	uint64_t sum = 0;
	size_t i;

	for (i = 0; z && i < z->n_zones; i++)
		sum += z->zones[i]->spanned;
	return sum;
}

int picture_load(struct picture *p, bool exact)
{
	int rc = ask(p, "zoneinfo", &p->zones);

	if (rc == EXIT_DONE)
		rc = ask(p, "buddyinfo", &p->buddy);
	if (rc == EXIT_DONE)
		rc = ask(p, "layout", &p->layout);
	if (rc == EXIT_DONE)
		rc = ask(p, "vmallocinfo", &p->areas);
	if (rc == EXIT_DONE)
		rc = ask(p, "kmap-window", &p->kmap);
	if (rc != EXIT_DONE)
		return rc;
	p->cell = 1;
	while (p->cell * p->columns * p->rows < spanned_frames(p))
		p->cell *= 2;
	return load_frames(p, exact);
}

int picture_load_tasks(struct picture *p)
{
	int rc = ask(p, "tasks", &p->tasks);
	size_t i;

	for (i = 0; rc == EXIT_DONE && p->tasks->tasks && i < p->tasks->tasks->n_tasks &&
		    i < MAX_DRAWN_TASKS;
	     i++)
		rc = ask_from(p, "maps", p->tasks->tasks->tasks[i]->task, 0, &p->maps[i]);
	return rc;
}

void picture_free(struct picture *p)
{
	Zoned__V1__InspectResponse *responses[] = {p->zones, p->buddy, p->layout,
						   p->areas, p->kmap,  p->tasks};
	unsigned i;

	for (i = 0; i < MAX_DRAWN_TASKS; i++)
		if (p->maps[i])
			message_free(&p->maps[i]->base);

	for (i = 0; i < sizeof responses / sizeof *responses; i++)
		if (responses[i])
			message_free(&responses[i]->base);
	free(p->runs);
}
