/*
 * top.c - `zonectl top`: a machine at work, on a terminal until a key ends it, or as lines
 * of text or JSON for a pipe.
 *
 * The loop waits for keys, for the daemon and for the next round at once, so that a key
 * works whatever the daemon does. A daemon that goes away is said to be gone and tried
 * again at every round; what was seen last stays.
 *
 * Signals that end it are held back but while it waits, so that there is one way out and
 * the terminal is given back on it.
 */
#include <curses.h>
#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "top.h"

/* After the others: it makes macros of words such as `columns`. */
#include <term.h>

enum {
	DEFAULT_INTERVAL_MS = 1000,
	LEAST_INTERVAL_MS = 100,
	MOST_INTERVAL_MS = 3600000,
	CONNECT_MS = 1000,  /* no key works meanwhile */
	PATIENCE_MS = 2000, /* a round that takes longer is spoken of */
	CTRL_L = 12,
};

static const struct flag top_flags[] = {
    {"interval", 'i', "TIME", "between two looks: 1s, 250ms; 100ms to 1h, default 1s"},
    {"batch", 'b', NULL,
     "print pictures one after the other, for a pipe or a file; so does --json"},
    {"once", 0, NULL, "one picture, then end; rates take two"},
    {"count", 'n', "N", "end after N pictures; with --batch"},
    {"zone", 0, "dma|normal|highmem|movable", "whose free blocks are shown by migratetype"},
    {"sort", 0, "rate|total|name", "order of the events; default rate"},
};
enum { NR_TOP_FLAGS = sizeof top_flags / sizeof *top_flags };

struct top {
	struct top_watch watch;
	struct top_view view;
	bool batch, once, quit;
	bool zone_chosen;
	uint64_t left; /* pictures of a batch */
	uint64_t next_ns;
	bool lost; /* the last round found no daemon */
};

static volatile sig_atomic_t ended_by;

static void on_signal(int signal)
{
	ended_by = signal;
}

/* ---- the screen ---- */

/* How each look is made, with colours and without. */
static const struct {
	short colour; /* -1: the terminal's own */
	attr_t with, without;
} looks[LOOK_END] = {
    [LOOK_PLAIN] = {-1, A_NORMAL, A_NORMAL},
    [LOOK_TITLE] = {-1, A_BOLD, A_BOLD},
    [LOOK_HEAD] = {COLOR_CYAN, A_BOLD, A_UNDERLINE},
    [LOOK_DIM] = {-1, A_DIM, A_NORMAL},
    [LOOK_GOOD] = {COLOR_GREEN, A_NORMAL, A_NORMAL},
    [LOOK_WARN] = {COLOR_YELLOW, A_NORMAL, A_NORMAL},
    [LOOK_BAD] = {COLOR_RED, A_BOLD, A_BOLD},
    [LOOK_CHOSEN] = {-1, A_REVERSE, A_REVERSE},
};

static SCREEN *screen_open(bool coloured)
{
	const char *type = getenv("TERM");
	SCREEN *screen = NULL;
	int look, known;

	/* newterm() does not say what it misses. */
	if (setupterm(NULL, STDOUT_FILENO, &known) == OK) {
		known = cursor_address != NULL;
		del_curterm(cur_term);
		if (known)
			screen = newterm(NULL, stdout, stdin);
	}
	if (!screen) {
		usage_error("top: no screen on a terminal of type %s; try --batch",
			    type ? type : "(no $TERM)");
		return NULL;
	}
	cbreak();
	noecho();
	nodelay(stdscr, TRUE);
	keypad(stdscr, TRUE);
	set_escdelay(25);
	curs_set(0);
	if (coloured && has_colors()) {
		start_color();
		use_default_colors();
		for (look = LOOK_PLAIN; look < LOOK_END; look++)
			init_pair((short)look, looks[look].colour, -1);
	}
	return screen;
}

static void set_look(int look, bool coloured)
{
	if (coloured)
		attr_set(looks[look].with, (short)look, NULL);
	else
		attr_set(looks[look].without, 0, NULL);
}

/* One line, cut at the screen's edge. Returns where the next begins. */
static const char *put_line(const char *line, bool coloured)
{
	int width = 0, cells;
	mbstate_t state = {0};

	for (; *line && *line != '\n';) {
		size_t length;
		wchar_t c;

		if (*line < LOOK_END && *line >= LOOK_PLAIN) {
			set_look(*line++, coloured);
			continue;
		}
		length = mbrtowc(&c, line, strlen(line), &state);
		if (length == (size_t)-1 || length == (size_t)-2) {
			memset(&state, 0, sizeof state);
			length = 1;
			c = '?';
		}
		cells = wcwidth(c);
		if (width + (cells > 0 ? cells : 0) > COLS)
			break;
		if (c == '?' && length == 1)
			addch('?');
		else if (cells >= 0)
			addnstr(line, (int)length);
		width += cells > 0 ? cells : 0;
		line += length;
	}
	while (*line && *line != '\n')
		line++;
	return *line ? line + 1 : line;
}

static void draw_screen(struct top *t)
{
	bool coloured = want_colour(stdout) && has_colors();
	const char *at;
	char *picture;
	int row;

	t->view.width = (unsigned)COLS;
	t->view.height = (unsigned)LINES;
	picture = top_picture(&t->watch, &t->view);
	erase();
	for (at = picture, row = 0; *at && row < LINES; row++) {
		move(row, 0);
		set_look(LOOK_PLAIN, coloured);
		at = put_line(at, coloured);
	}
	refresh();
	free(picture);
}

/* ---- a batch ---- */

static void print_text(const struct top *t)
{
	char *picture = top_picture(&t->watch, &t->view), *from, *to = picture;

	for (from = picture; *from; from++) {
		if (*from > 0 && *from < LOOK_END)
			continue;
		while (*from == '\n' && to > picture && to[-1] == ' ')
			to--;
		*to++ = *from;
	}
	*to = '\0';
	printf("%s\n", picture);
	free(picture);
}

/* The record's lines are printed once. */
static void print_picture(struct top *t)
{
	if (t->watch.ctl->json) {
		json_t *o = top_json(&t->watch);

		json_print_line(o, stdout);
		json_decref(o);
	} else {
		print_text(t);
	}
	fflush(stdout);
	top_shown(&t->watch);
	if (--t->left == 0 || ferror(stdout))
		t->quit = true;
}

/* ---- rounds ---- */

/* What has to be said of the last round; of one that takes long: then it returns true. */
static bool say(struct top *t)
{
	const struct top_watch *w = &t->watch;
	uint64_t waited = w->nr_asked ? (monotonic_ns() - w->round_ns) / 1000000 : 0;
	char *note = t->view.note;
	size_t size = sizeof t->view.note;

	*note = '\0';
	if (w->failed)
		snprintf(note, size, "trying again: %.200s", w->why);
	else if (waited > PATIENCE_MS)
		snprintf(note, size, "no answer for %llu s", (unsigned long long)waited / 1000);
	else if (w->list && !w->name)
		snprintf(note, size,
			 "there is no machine; `zonectl machine create NAME` makes one");
	else if (w->list && !w->machine)
		snprintf(note, size, "there is no machine %.63s (any more)", w->name);
	else
		snprintf(note, size, "%s", w->why);
	return waited > PATIENCE_MS;
}

/* Nobody can mend these by waiting. */
static bool is_final(int code)
{
	return code == ZONED_UNAUTHENTICATED || code == ZONED_PERMISSION_DENIED ||
	       code == ZONED_UNIMPLEMENTED || code == ZONED_ARGUMENT || code == ZONED_PROTOCOL;
}

/* A round is over. EXIT_DONE: go on. */
static int after_round(struct top *t)
{
	struct top_watch *w = &t->watch;
	bool first = !t->lost;

	t->lost = w->failed != 0;
	if (w->failed && (is_final(w->failed) || t->once)) {
		if (!t->batch)
			endwin(); /* what is said would go with the screen */
		return ctl_failed(w->ctl, "top", w->failed);
	}
	if (t->batch && w->failed && first)
		complain("top: %s; trying again", w->why);
	if (!t->batch || w->failed)
		return EXIT_DONE;
	if (!w->machine) {
		if (w->list->n_machines || w->name)
			complain("top: there is no machine %s", w->name);
		else
			complain("top: there is no machine");
		return EXIT_REFUSED;
	}
	if (*w->why)
		complain("top: %s", w->why);
	print_picture(t);
	return EXIT_DONE;
}

static void begin_round(struct top *t)
{
	uint64_t now = monotonic_ns();

	/* A round that is on has to end first; what was missed is not made up for. */
	t->next_ns += t->view.interval_ms * 1000000ull;
	if (t->next_ns < now)
		t->next_ns = now + t->view.interval_ms * 1000000ull;
	top_ask(&t->watch);
}

/* ---- keys ---- */

static void next_machine(struct top *t, int step)
{
	struct top_watch *w = &t->watch;
	size_t n = w->list ? w->list->n_machines : 0, i;

	if (!n)
		return;
	for (i = 0; i < n && strcmp(w->list->machines[i]->name, w->name) != 0; i++)
		;
	i = i == n ? 0 : (i + n + (size_t)(step + (int)n)) % n;
	top_choose(w, must(strdup(w->list->machines[i]->name)));
	t->zone_chosen = false;
	top_ask(w);
}

static void next_zone(struct top *t, int step)
{
	uint32_t zones = top_zones(&t->watch), nr = 32;

	if (!zones)
		return;
	do
		t->view.zone = (t->view.zone + nr + (uint32_t)(step + (int)nr)) % nr;
	while (!(zones >> t->view.zone & 1));
	t->zone_chosen = true;
}

static void change_interval(struct top *t, bool longer)
{
	uint32_t ms = longer ? t->view.interval_ms * 2 : t->view.interval_ms / 2;

	if (ms < LEAST_INTERVAL_MS || ms > MOST_INTERVAL_MS)
		return;
	t->view.interval_ms = ms;
	t->next_ns = monotonic_ns() + ms * 1000000ull;
}

static void handle_key(struct top *t, int key)
{
	struct top_view *v = &t->view;

	if (v->help && key != KEY_RESIZE && key != 'q') {
		v->help = false;
		return;
	}
	switch (key) {
	case 'q': t->quit = true; break;
	case KEY_LEFT: next_machine(t, -1); break;
	case KEY_RIGHT: next_machine(t, 1); break;
	case KEY_UP: next_zone(t, -1); break;
	case KEY_DOWN: next_zone(t, 1); break;
	case ' ': v->paused = !v->paused; break;
	case '+': change_interval(t, true); break;
	case '-': change_interval(t, false); break;
	case 's': v->sort = v->sort + 1 == NR_SORTS ? SORT_RATE : v->sort + 1; break;
	case 'r':
		t->watch.list_ns = 0;
		top_ask(&t->watch);
		break;
	case 'h':
	case '?': v->help = true; break;
	case CTRL_L: clearok(curscr, TRUE); break;
	default: break;
	}
}

/* ---- the loop ---- */

static int wait_for_something(struct top *t, const sigset_t *open)
{
	struct zoned *z = t->watch.ctl->z;
	struct pollfd fds[] = {{t->batch ? -1 : STDIN_FILENO, POLLIN, 0},
			       {t->watch.nr_asked ? zoned_fd(z) : -1, zoned_poll_events(z), 0}};
	uint64_t now = monotonic_ns(), until = t->next_ns;
	struct timespec timeout;

	if (t->view.paused && !t->watch.nr_asked)
		until = UINT64_MAX;
	/* Deadlines are the library's, and how long it takes is shown. */
	if (t->watch.nr_asked && until > now + 500000000)
		until = now + 500000000;
	until = until > now ? until - now : 0;
	timeout = (struct timespec){(time_t)(until / 1000000000), (long)(until % 1000000000)};
	if (ppoll(fds, 2, until == UINT64_MAX - now ? NULL : &timeout, open) < 0 && errno != EINTR)
		return EXIT_FILE;
	/* The terminal is gone. */
	if (fds[0].revents & (POLLHUP | POLLERR | POLLNVAL))
		t->quit = true;
	return EXIT_DONE;
}

static void choose_zone(struct top *t)
{
	uint32_t zones = top_zones(&t->watch);

	/* The one that fills first, until somebody says otherwise: the highest. */
	if (!t->zone_chosen && zones)
		t->view.zone = 31 - (uint32_t)__builtin_clz(zones);
}

static int loop(struct top *t, const sigset_t *open)
{
	int rc = EXIT_DONE, key;

	t->next_ns = monotonic_ns();
	while (!t->quit && !ended_by && rc == EXIT_DONE) {
		bool over = false, typed = false;

		if (!t->view.paused && monotonic_ns() >= t->next_ns) {
			begin_round(t);
			over = !t->watch.nr_asked; /* it could not even begin */
		}
		if (!over) {
			rc = wait_for_something(t, open);
			over = top_take(&t->watch);
		}
		if (over) {
			choose_zone(t);
			rc = rc == EXIT_DONE ? after_round(t) : rc;
		}
		if (t->batch)
			continue;
		while ((key = getch()) != ERR) {
			handle_key(t, key);
			typed = true;
		}
		/* Half a round is not shown. */
		if (say(t) || over || typed)
			draw_screen(t);
	}
	return rc;
}

static int run(struct top *t)
{
	static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction action = {.sa_handler = on_signal};
	sigset_t held, open;
	SCREEN *screen;
	unsigned i;
	int rc;

	if (t->batch)
		return loop(t, NULL);
	sigemptyset(&action.sa_mask);
	sigemptyset(&held);
	sigaddset(&held, SIGWINCH);
	for (i = 0; i < 3; i++) {
		sigaction(ends[i], &action, NULL);
		sigaddset(&held, ends[i]);
	}
	sigprocmask(SIG_BLOCK, &held, &open);
	screen = screen_open(want_colour(stdout));
	if (!screen)
		return EXIT_USAGE;
	rc = loop(t, &open);
	endwin();
	delscreen(screen);
	sigprocmask(SIG_SETMASK, &open, NULL);
	if (ended_by && ended_by != SIGINT) {
		signal(ended_by, SIG_DFL);
		raise(ended_by);
	}
	return rc;
}

/* ---- the command ---- */

static int read_flags(struct top *t, const struct args *a)
{
	const char *interval = args_text(a, "interval"), *nr = args_text(a, "count");
	const char *zone = args_text(a, "zone"), *sort = args_text(a, "sort");
	const struct contract_value *v;

	t->once = args_has(a, "once");
	t->batch = t->once || args_has(a, "batch") || t->watch.ctl->json;
	if (interval &&
	    (!duration_parse(interval, &t->view.interval_ms) ||
	     t->view.interval_ms < LEAST_INTERVAL_MS || t->view.interval_ms > MOST_INTERVAL_MS))
		return usage_error("top: --interval %s is not a time from 100ms to 1h", interval);
	if (nr && (!number_parse(nr, false, &t->left) || !t->left))
		return usage_error("top: --count %s is not a number from 1 on", nr);
	if (nr && !t->batch)
		return usage_error("top: --count is for --batch");
	if (t->once)
		t->left = 1;
	if (zone) {
		v = enum_find(contract_enum_by_name("Zone"), zone);
		if (!v || v->number > 31)
			return usage_error(
			    "top: --zone %s is none of dma, normal, highmem, movable", zone);
		t->view.zone = v->number;
		t->zone_chosen = true;
	}
	while (sort && t->view.sort < NR_SORTS && strcmp(sort, top_sorts[t->view.sort]) != 0)
		t->view.sort++;
	if (t->view.sort == NR_SORTS)
		return usage_error("top: --sort %s is none of rate, total, name", sort);
	if (!t->batch && (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)))
		return usage_error("top: this is no terminal; --batch or --once print text, --json "
				   "prints JSON");
	return args_limit_words(a, "top", 0);
}

static void usage(void)
{
	const struct top_key *k;

	printf("zonectl top - a machine at work, live\n\n"
	       "usage: zonectl top [-m MACHINE] [flags]\n\n"
	       "Zones against their marks, free blocks by order, pkmap and vmalloc, per-CPU "
	       "lists,\nops and events per second, the last ops. Without -m: the first machine. "
	       "The\nmachine is asked once an interval, and not at all while it takes no "
	       "ops.\nNO_COLOR is heeded.\n\n");
	print_flags("flags:", top_flags, NR_TOP_FLAGS);
	printf("\nkeys:\n");
	for (k = top_keys; k->keys; k++)
		printf("  %-18s %s\n", k->keys, k->help);
	print_flags("\nfor every command:", global_flags, nr_global_flags);
}

int top_command(struct ctl *ctl, int argc, char **argv)
{
	struct top t = {.watch = {.ctl = ctl},
			.view = {.interval_ms = DEFAULT_INTERVAL_MS, .width = terminal_width()},
			.left = UINT64_MAX};
	struct args a;
	int rc = args_parse(ctl, "top", argc, argv, top_flags, NR_TOP_FLAGS, &a);

	if (rc != EXIT_DONE)
		return rc;
	if (ctl->help) {
		usage();
		args_free(&a);
		return EXIT_DONE;
	}
	rc = read_flags(&t, &a);
	args_free(&a);
	if (rc != EXIT_DONE)
		return rc;
	t.view.ascii = !terminal_is_utf8();
	t.view.live = !t.batch;
	if (ctl->machine && *ctl->machine)
		t.watch.name = must(strdup(ctl->machine));
	if (!t.batch)
		ctl->options.connect_timeout_ms = CONNECT_MS;
	rc = ctl_connect(ctl);
	if (rc == EXIT_DONE)
		rc = run(&t);
	top_free(&t.watch);
	return rc;
}
