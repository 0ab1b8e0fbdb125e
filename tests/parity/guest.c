/*
 * guest.c - see guest.h. The command line is that of the daemon's back end: microvm,
 * RAM in a memfd shared with us, a virtserialport on a socketpair.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "boot/layout.h"
#include "state.h"

enum { LINK_FD = 3, RAM_FD = 4 };
/* QEMU takes whole MiB. */
enum { WINDOW_END = (HOST_WINDOW_PADDR + HOST_WINDOW_BYTES + 0xfffff) & ~0xfffffu };

static bool fail(struct guest *g, const char *what)
{
	snprintf(g->error, sizeof g->error, "%s: %s", what, strerror(errno));
	return false;
}

static void run_qemu(const char *kernel, u64 ram_bytes, u32 cpus, int link, int ram, bool counting)
{
	char object[200], memory[40], smp[16];

	/* The two descriptors may be in each other's way. */
	link = dup2(link, 10);
	ram = dup2(ram, 11);
	dup2(link, LINK_FD);
	dup2(ram, RAM_FD);
	close(10);
	close(11);
	snprintf(smp, sizeof smp, "%u", cpus);
	snprintf(memory, sizeof memory, "%lluM", (unsigned long long)ram_bytes >> 20);
	snprintf(object, sizeof object,
		 "memory-backend-file,id=r,size=%s,share=on,mem-path=/proc/self/fd/%d", memory,
		 RAM_FD);
	execlp("qemu-system-x86_64", "qemu-system-x86_64", "-accel", "tcg,thread=single", "-M",
	       "microvm,memory-backend=r", "-cpu", "qemu64", "-smp", smp, "-m", memory, "-object",
	       object, "-nodefaults", "-display", "none", "-no-reboot", "-global",
	       "virtio-mmio.force-legacy=false", "-chardev", "socket,id=c0,fd=3", "-device",
	       "virtio-serial-device,max_ports=2", "-device", "virtserialport,chardev=c0,nr=1",
	       "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", kernel,
	       counting ? "-icount" : (char *)NULL, "shift=0,sleep=off", (char *)NULL);
	perror("qemu-system-x86_64 (Debian package qemu-system-x86)");
	_exit(127);
}

static bool write_all(int fd, const void *from, size_t bytes)
{
	const u8 *f = from;

	while (bytes) {
		ssize_t n = write(fd, f, bytes);

		if (n <= 0)
			return false;
		f += n;
		bytes -= (size_t)n;
	}
	return true;
}

static bool flush(struct guest *g)
{
	size_t length = g->out_length;

	g->out_length = 0;
	return write_all(g->link, g->out, length);
}

static bool put(struct guest *g, const void *from, size_t bytes)
{
	if (bytes > sizeof g->out - g->out_length && !flush(g))
		return false;
	if (bytes)
		memcpy(g->out + g->out_length, from, bytes);
	g->out_length += bytes;
	return true;
}

static bool take(struct guest *g, void *to, size_t bytes)
{
	u8 *t = to;

	while (bytes) {
		size_t held = g->in_end - g->in_start, n = bytes < held ? bytes : held;

		if (!held) {
			if (g->is_slow)
				usleep(100);
			ssize_t got = read(g->link, g->in, g->is_slow ? 4096 : sizeof g->in);

			if (got <= 0)
				return false;
			g->in_start = 0;
			g->in_end = (size_t)got;
			continue;
		}
		memcpy(t, g->in + g->in_start, n);
		g->in_start += n;
		t += n;
		bytes -= n;
	}
	return true;
}

static bool put_padding(struct guest *g, u32 bytes)
{
	static const u8 zeros[8];

	return put(g, zeros, wire_pad(bytes) - bytes);
}

static bool send_body(struct guest *g, u16 type, const void *body, u32 bytes)
{
	struct wire_header h = {WIRE_MAGIC, type, 0, wire_pad(bytes), 0};

	return put(g, &h, sizeof h) && put(g, body, bytes) && put_padding(g, bytes) && flush(g);
}

/* Reads frames up to one of this type. Events on the way are kept; what is in the
 * frame is the caller's to free. */
static u8 *receive(struct guest *g, u16 type, struct wire_header *h)
{
	for (;;) {
		if (!take(g, h, sizeof *h) || h->magic != WIRE_MAGIC) {
			snprintf(g->error, sizeof g->error, "the link broke");
			return NULL;
		}
		u8 *body = malloc(h->length + 1);

		if (!body || !take(g, body, h->length)) {
			free(body);
			snprintf(g->error, sizeof g->error, "the link broke inside a frame");
			return NULL;
		}
		body[h->length] = 0;
		if (h->type == type)
			return body;
		if (h->type == WIRE_EVENTS) {
			if (g->nr_events + h->count > g->room) {
				g->room = (g->nr_events + h->count) * 2;
				g->events = realloc(g->events, g->room * sizeof *g->events);
			}
			memcpy(g->events + g->nr_events, body, h->count * sizeof *g->events);
			g->nr_events += h->count;
		} else if (h->type == WIRE_COMPLETION) {
			if (g->nr_completions < sizeof g->completions / sizeof g->completions[0])
				memcpy(&g->completions[g->nr_completions], body,
				       sizeof g->completions[0]);
			g->nr_completions++;
		} else if (h->type == WIRE_COST) {
			memcpy(&g->cost, body, sizeof g->cost);
		} else if (h->type == WIRE_PANIC) {
			snprintf(g->error, sizeof g->error, "guest panic: %.*s", (int)h->count,
				 (char *)body);
			free(body);
			return NULL;
		}
		free(body);
	}
}

static bool start(struct guest *g, const char *kernel, const struct engine_config *config,
		  u64 ram_bytes, bool counting)
{
	int pair[2];
	struct wire_header h;

	/* The guest's own frames are there even if the machine's RAM ends before them. */
	if (ram_bytes < WINDOW_END)
		ram_bytes = WINDOW_END;
	memset(g, 0, sizeof *g);
	g->ram_bytes = ram_bytes;
	g->ram_fd = memfd_create("zoned-guest", 0);
	if (g->ram_fd < 0 || ftruncate(g->ram_fd, (off_t)ram_bytes) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return fail(g, "memfd and socketpair");
	g->ram = mmap(NULL, ram_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, g->ram_fd, 0);
	if (g->ram == MAP_FAILED)
		return fail(g, "mmap");
	g->pid = fork();
	if (g->pid == 0)
		run_qemu(kernel, ram_bytes, config->cpus ? config->cpus : 1, pair[1], g->ram_fd,
			 counting);
	close(pair[1]);
	g->link = pair[0];

	struct wire_hello *hello = (struct wire_hello *)(void *)receive(g, WIRE_HELLO, &h);

	if (!hello)
		return false;
	bool same = hello->version == WIRE_VERSION && hello->config_bytes == sizeof *config &&
		    hello->event_bytes == sizeof(struct engine_event);
	free(hello);
	if (!same || !send_body(g, WIRE_CREATE, config, sizeof *config)) {
		snprintf(g->error, sizeof g->error, "the guest is of another version");
		return false;
	}
	struct wire_ready *ready = (struct wire_ready *)(void *)receive(g, WIRE_READY, &h);

	if (!ready)
		return false;
	bool ok = ready->ok;
	if (!ok)
		snprintf(g->error, sizeof g->error, "%s", (char *)(ready + 1));
	free(ready);
	if (!ok)
		return false;
	u32 page_offset = config->page_offset ? config->page_offset : 0xc0000000u;

	g->engine.bias = (uintptr_t)g->ram - page_offset;
	return engine_attach(&g->engine, config);
}

bool guest_start(struct guest *g, const char *kernel, const struct engine_config *config,
		 u64 ram_bytes)
{
	return start(g, kernel, config, ram_bytes, false);
}

bool guest_start_counting(struct guest *g, const char *kernel, const struct engine_config *config,
			  u64 ram_bytes)
{
	return start(g, kernel, config, ram_bytes, true);
}

bool guest_send(struct guest *g, u16 type, const struct engine_op *op)
{
	struct wire_op w = {op->code, op->cpu, op->task, op->owner};
	u32 words = wire_words(op->args, OP_ARGS), bytes = words * (u32)sizeof *op->args;
	struct wire_header h = {WIRE_MAGIC, type, (u16)words,
				(u32)sizeof w + bytes + wire_pad(op->data_len), op->data_len};

	return (put(g, &h, sizeof h) && put(g, &w, sizeof w) && put(g, op->args, bytes) &&
		put(g, op->data, op->data_len) && put_padding(g, op->data_len)) ||
	       fail(g, "write to the guest");
}

bool guest_receive(struct guest *g, struct engine_result *res)
{
	struct wire_header h;
	u8 *body = flush(g) ? receive(g, WIRE_RESULT, &h) : NULL;
	struct wire_result out;
	size_t bytes;

	if (!body)
		return false;
	memcpy(&out, body, sizeof out);
	bytes = h.words * sizeof *res->values;
	res->op = out.op;
	res->status = out.status;
	res->data_len = h.count;
	memset(res->values, 0, sizeof res->values);
	memcpy(res->values, body + sizeof out, bytes);
	memcpy(res->data, body + sizeof out + bytes, h.count);
	free(body);
	return true;
}

bool guest_execute(struct guest *g, const struct engine_op *op, struct engine_result *res)
{
	g->nr_events = g->nr_completions = 0;
	return guest_send(g, WIRE_OP, op) && guest_receive(g, res);
}

struct guest_source {
	struct digest_source source; /* first */
	struct guest *guest;
};

/* Frames from 4 GiB on are in the file where the hole would be. */
enum { HOLE_START = 0xc0000, HOLE_FRAMES = 0x40000 };

static size_t file_offset(pfn_t pfn)
{
	if (pfn >= HOLE_START)
		pfn -= pfn < HOLE_START + HOLE_FRAMES ? pfn - HOLE_START : HOLE_FRAMES;
	return (size_t)pfn << PAGE_SHIFT;
}

pfn_t guest_next_frame(struct guest *g, pfn_t from)
{
	off_t at = lseek(g->ram_fd, (off_t)file_offset(from), SEEK_DATA);
	pfn_t pfn = (pfn_t)(at >> PAGE_SHIFT);

	if (at >= 0 && pfn >= HOLE_START)
		pfn += HOLE_FRAMES;
	return at < 0 || pfn >= g->engine.st->layout.max_pfn ? 0xffffffffu : pfn;
}

void guest_read_frame(struct guest *g, pfn_t pfn, u64 words[PAGE_SIZE / 8])
{
	memcpy(words, g->ram + file_offset(pfn), PAGE_SIZE);
}

static pfn_t next_frame(struct digest_source *source, pfn_t from)
{
	return guest_next_frame(((struct guest_source *)source)->guest, from);
}

static void copy_frame(struct digest_source *source, pfn_t pfn, u64 words[PAGE_SIZE / 8])
{
	guest_read_frame(((struct guest_source *)source)->guest, pfn, words);
}

struct engine_digest guest_digest(struct guest *g)
{
	struct guest_source s = {{next_frame, copy_frame}, g};

	return engine_digest(&g->engine, &s.source);
}

const char *guest_check(struct guest *g, struct engine_error *why)
{
	struct engine_config config = *engine_config(&g->engine);

	engine_attach(&g->engine, &config);
	return engine_check(&g->engine, why);
}

int guest_stop(struct guest *g)
{
	const struct wire_op end = {0};
	int status = 0;

	if (g->link > 0) {
		send_body(g, WIRE_END, &end, sizeof end);
		close(g->link);
	}
	if (g->pid > 0)
		waitpid(g->pid, &status, 0);
	if (g->ram)
		munmap(g->ram, g->ram_bytes);
	close(g->ram_fd);
	free(g->events);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
