/*
 * qemu.c - see qemu.h. The command line's facts were measured on QEMU 7.2.
 *
 * Invariants:
 *  1. `reason` is set once; from then on nothing is written and the process is dead or
 *     has been sent SIGKILL.
 *  2. At most one uv_write() is under way, of `sending`; what is written meanwhile
 *     collects in `out`.
 *  3. Memory is freed when the process has been reaped and the last handle is closed.
 *
 * The end shows in two places, in either order: the link closes and the process exits.
 * The exit says more, so a closed link waits END_MS for it.
 *
 * Deliberately not here: what the bytes mean (backend_kernel.c).
 */
#include "qemu.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	END_MS = 1000,
	INPUT_MAX = 16 << 20, /* unconsumed bytes after which the link is not read */
	READ_ROOM = 1 << 16,
	STDERR_BYTES = 200,
	LINK_FD = 3, /* in QEMU */
	RAM_FD = 4,
};

struct buffer {
	u8 *bytes;
	size_t start, end, size;
};

struct qemu {
	struct qemu_hooks hooks;
	uv_process_t process;
	uv_pipe_t link, errors;
	uv_timer_t expectation, end;
	unsigned handles; /* not yet closed */
	bool running;	  /* not yet reaped */
	bool stopped;	  /* nobody owns it */
	bool closing;
	bool paused; /* too much input */
	bool is_sending;
	const char *complaint;
	struct buffer in, out, sending;
	uv_write_t write;
	char message[STDERR_BYTES + 1]; /* what it said on stderr, at first */
	size_t message_length;
	char reason[ENGINE_ERROR_LENGTH];
};

/* ---- buffers ---- */

static size_t held(const struct buffer *b)
{
	return b->end - b->start;
}

static void make_room(struct buffer *b, size_t room)
{
	if (b->start == b->end)
		b->start = b->end = 0;
	if (b->size - b->end >= room)
		return;
	if (b->start) {
		memmove(b->bytes, b->bytes + b->start, held(b));
		b->end -= b->start;
		b->start = 0;
	}
	if (b->size - b->end >= room)
		return;
	b->size = (b->end + room) * 2;
	b->bytes = realloc(b->bytes, b->size);
	if (!b->bytes)
		abort();
}

/* ---- the end ---- */

static void on_closed(uv_handle_t *handle)
{
	struct qemu *q = handle->data;

	if (--q->handles)
		return;
	free(q->in.bytes);
	free(q->out.bytes);
	free(q->sending.bytes);
	free(q);
}

static void close_if_over(struct qemu *q)
{
	if (!q->stopped || q->running || q->closing)
		return;
	q->closing = true;
	uv_close((uv_handle_t *)&q->process, on_closed);
	uv_close((uv_handle_t *)&q->link, on_closed);
	uv_close((uv_handle_t *)&q->errors, on_closed);
	uv_close((uv_handle_t *)&q->expectation, on_closed);
	uv_close((uv_handle_t *)&q->end, on_closed);
}

static void kill_it(struct qemu *q)
{
	if (q->running)
		uv_process_kill(&q->process, SIGKILL);
}

void qemu_condemn(struct qemu *q, const char *reason)
{
	if (!q->reason[0])
		snprintf(q->reason, sizeof q->reason, "%s", reason);
	uv_read_stop((uv_stream_t *)&q->link);
	uv_timer_stop(&q->expectation);
	uv_timer_stop(&q->end);
	kill_it(q);
}

/* It ended by itself. */
static void end(struct qemu *q, const char *reason)
{
	if (q->reason[0])
		return;
	qemu_condemn(q, reason);
	if (!q->stopped)
		q->hooks.ended(q->hooks.user);
}

/* Of what it says on stderr, the first line or two; the rest is dropped. */
static void keep_message(struct qemu *q, const char *bytes, ssize_t nr)
{
	for (ssize_t i = 0; i < nr && q->message_length < STDERR_BYTES; i++)
		q->message[q->message_length++] = (char)(bytes[i] == '\n' ? ' ' : bytes[i]);
}

/* What is left to read of what it said: its end may be known first. */
static void read_messages(struct qemu *q)
{
	char bytes[STDERR_BYTES];
	uv_os_fd_t fd;
	ssize_t nr = 0;

	if (uv_is_closing((uv_handle_t *)&q->errors) || uv_fileno((uv_handle_t *)&q->errors, &fd))
		return;
	do {
		keep_message(q, bytes, nr);
		nr = read(fd, bytes, sizeof bytes);
	} while (nr > 0);
}

static void on_reaped(uv_process_t *process, int64_t status, int signal_number)
{
	struct qemu *q = process->data;
	char reason[ENGINE_ERROR_LENGTH];

	q->running = false;
	read_messages(q);
	/* -no-reboot makes of a triple fault a shutdown, and of that an exit with 0. That is also
	 * how it obeys a signal, but then it says so. */
	if (signal_number)
		snprintf(reason, sizeof reason, "QEMU was killed by signal %d", signal_number);
	else if (status == 0 && !strstr(q->message, "terminating on signal"))
		snprintf(reason, sizeof reason, "triple fault in the guest");
	else
		snprintf(reason, sizeof reason, "QEMU exited with status %d%s%.150s", (int)status,
			 q->message_length ? ": " : "", q->message);
	end(q, reason);
	close_if_over(q);
}

/* The time for a process to end after its link, or after the order to power off. */
static void on_end_timer(uv_timer_t *timer)
{
	struct qemu *q = timer->data;

	if (q->stopped)
		kill_it(q);
	else
		end(q, "the link to the guest broke");
}

static void on_expectation(uv_timer_t *timer)
{
	struct qemu *q = timer->data;

	end(q, q->complaint);
}

/* ---- bytes ---- */

static void allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct qemu *q = handle->data;

	(void)suggested;
	make_room(&q->in, READ_ROOM);
	*buf = uv_buf_init((char *)q->in.bytes + q->in.end, (unsigned)(q->in.size - q->in.end));
}

static void on_read(uv_stream_t *stream, ssize_t nr, const uv_buf_t *buf)
{
	struct qemu *q = stream->data;

	(void)buf;
	if (nr < 0) {
		uv_read_stop(stream);
		uv_timer_start(&q->end, on_end_timer, END_MS, 0);
		return;
	}
	q->in.end += (size_t)nr;
	if (uv_is_active((uv_handle_t *)&q->expectation))
		uv_timer_again(&q->expectation);
	if (q->stopped)
		q->in.start = q->in.end;
	else if (nr)
		q->hooks.input(q->hooks.user);
	if (held(&q->in) > INPUT_MAX && !q->reason[0]) {
		q->paused = true;
		uv_read_stop(stream);
	}
}

static void allocate_message(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	static char bytes[STDERR_BYTES];

	(void)handle, (void)suggested;
	*buf = uv_buf_init(bytes, sizeof bytes);
}

static void on_message(uv_stream_t *stream, ssize_t nr, const uv_buf_t *buf)
{
	if (nr < 0)
		uv_read_stop(stream);
	else
		keep_message(stream->data, buf->base, nr);
}

const u8 *qemu_input(struct qemu *q, size_t *ret_length)
{
	*ret_length = held(&q->in);
	return q->in.bytes + q->in.start;
}

void qemu_consume(struct qemu *q, size_t bytes)
{
	q->in.start += bytes;
	if (!q->paused || held(&q->in) > INPUT_MAX / 2 || q->reason[0])
		return;
	q->paused = false;
	uv_read_start((uv_stream_t *)&q->link, allocate, on_read);
}

void qemu_write(struct qemu *q, const void *bytes, size_t length)
{
	make_room(&q->out, length);
	if (length)
		memcpy(q->out.bytes + q->out.end, bytes, length);
	q->out.end += length;
}

size_t qemu_unsent(const struct qemu *q)
{
	return held(&q->out);
}

static void on_written(uv_write_t *write, int error)
{
	struct qemu *q = write->data;

	(void)error; /* the reading side sees a broken link too, and its process's end */
	q->is_sending = false;
	q->sending.start = q->sending.end = 0;
	qemu_flush(q);
}

void qemu_flush(struct qemu *q)
{
	uv_stream_t *link = (uv_stream_t *)&q->link;
	struct buffer spare = q->sending;
	uv_buf_t buf;
	int sent;

	if (!held(&q->out) || q->is_sending || q->reason[0] || q->closing)
		return;
	buf = uv_buf_init((char *)q->out.bytes + q->out.start, (unsigned)held(&q->out));
	sent = uv_try_write(link, &buf, 1);
	if (sent > 0)
		q->out.start += (size_t)sent;
	if (!held(&q->out) || (sent < 0 && sent != UV_EAGAIN))
		return;
	q->sending = q->out;
	q->out = spare;
	buf = uv_buf_init((char *)q->sending.bytes + q->sending.start, (unsigned)held(&q->sending));
	q->write.data = q;
	q->is_sending = uv_write(&q->write, link, &buf, 1, on_written) == 0;
}

void qemu_expect(struct qemu *q, u64 milliseconds, const char *complaint)
{
	q->complaint = complaint;
	if (milliseconds && !q->reason[0])
		uv_timer_start(&q->expectation, on_expectation, milliseconds, milliseconds);
	else
		uv_timer_stop(&q->expectation);
}

const char *qemu_end_reason(const struct qemu *q)
{
	return q->reason[0] ? q->reason : NULL;
}

int qemu_pid(const struct qemu *q)
{
	return (int)q->process.pid;
}

/* ---- the beginning ---- */

/* The file that PATH finds. */
static bool find_program(const char *name, char *ret, size_t size)
{
	const char *path = getenv("PATH");

	for (size_t length; path; path = path[length] ? path + length + 1 : NULL) {
		length = strcspn(path, ":");
		snprintf(ret, size, "%.*s/%s", (int)length, path, name);
		if (length && access(ret, X_OK) == 0)
			return true;
	}
	return false;
}

static struct qemu *make(uv_loop_t *loop, const struct qemu_hooks *hooks)
{
	struct qemu *q = calloc(1, sizeof *q);

	if (!q)
		abort();
	q->hooks = *hooks;
	uv_pipe_init(loop, &q->link, 0);
	uv_pipe_init(loop, &q->errors, 0);
	uv_timer_init(loop, &q->expectation);
	uv_timer_init(loop, &q->end);
	q->process.data = q->link.data = q->errors.data = q->expectation.data = q->end.data = q;
	q->handles = 5;
	return q;
}

static int spawn_on(struct qemu *q, uv_loop_t *loop, char **args, int link, int ram_file)
{
	uv_stdio_container_t stdio[] = {
	    {.flags = UV_IGNORE},
	    {.flags = UV_IGNORE},
	    {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&q->errors},
	    [LINK_FD] = {.flags = UV_INHERIT_FD, .data.fd = link},
	    [RAM_FD] = {.flags = UV_INHERIT_FD, .data.fd = ram_file},
	};
	uv_process_options_t options = {
	    .exit_cb = on_reaped,
	    .file = args[0],
	    .args = args,
	    .stdio_count = (int)(sizeof stdio / sizeof stdio[0]),
	    .stdio = stdio,
	};

	return uv_spawn(loop, &q->process, &options);
}

static int spawn(struct qemu *q, uv_loop_t *loop, char **args, int ram_file)
{
	uv_os_sock_t pair[2];
	int error = uv_socketpair(SOCK_STREAM, 0, pair, UV_NONBLOCK_PIPE, 0);

	if (error)
		return error;
	error = uv_pipe_open(&q->link, pair[0]);
	if (error)
		close(pair[0]);
	else
		error = spawn_on(q, loop, args, pair[1], ram_file);
	close(pair[1]);
	return error;
}

struct qemu *qemu_start(uv_loop_t *loop, const char *kernel, int ram_file, u64 ram_bytes, u32 cpus,
			const char *gdb_socket, const struct qemu_hooks *hooks,
			struct engine_error *why)
{
	/* gdb knows how wide registers are from the QEMU that it talks to: the same machine,
	 * by the same package, with nothing but 32 bits. */
	const char *name = gdb_socket ? "qemu-system-i386" : "qemu-system-x86_64";
	char wrapper[512], program[512], object[128], memory[32], smp[16], gdb[1300], us[16];
	/* Whatever ends us ends it: the kernel's doing, once it knows of that wish; if we ended
	 * before, its parent is another one by then. */
	char *args[] = {wrapper,
			"--pdeathsig",
			"KILL",
			"--",
			"/bin/sh",
			"-c",
			"[ $PPID = $0 ] && exec \"$@\"",
			us,
			program,
			"-accel",
			"tcg,thread=single",
			"-M",
			"microvm,memory-backend=ram",
			"-cpu",
			"qemu64",
			"-smp",
			smp,
			"-m",
			memory,
			"-object",
			object,
			"-nodefaults",
			"-display",
			"none",
			"-no-reboot",
			"-global",
			"virtio-mmio.force-legacy=false",
			"-chardev",
			"socket,id=link,fd=3",
			"-device",
			"virtio-serial-device,max_ports=2",
			"-device",
			"virtserialport,chardev=link,nr=1",
			"-device",
			"isa-debug-exit,iobase=0xf4,iosize=4",
			"-kernel",
			(char *)(uintptr_t)kernel,
			gdb_socket ? "-gdb" : NULL,
			gdb,
			NULL};
	struct qemu *q;
	int error;

	if (!find_program(name, program, sizeof program) ||
	    !find_program("setpriv", wrapper, sizeof wrapper)) {
		snprintf(why->text, sizeof why->text,
			 "the kernel back end needs %s and setpriv (Debian packages "
			 "qemu-system-x86 and util-linux)",
			 name);
		return NULL;
	}
	snprintf(gdb, sizeof gdb, "unix:path=%s,server=on,wait=off", gdb_socket ? gdb_socket : "");
	snprintf(us, sizeof us, "%d", (int)getpid());
	snprintf(smp, sizeof smp, "%u", cpus);
	snprintf(memory, sizeof memory, "%lluM", (unsigned long long)ram_bytes >> 20);
	snprintf(object, sizeof object,
		 "memory-backend-file,id=ram,size=%s,share=on,mem-path=/proc/self/fd/%d", memory,
		 RAM_FD);
	q = make(loop, hooks);
	error = spawn(q, loop, args, ram_file);
	if (error) {
		snprintf(why->text, sizeof why->text, "%.100s cannot be started: %.60s", program,
			 uv_strerror(error));
		q->stopped = true;
		close_if_over(q);
		return NULL;
	}
	q->running = true;
	uv_read_start((uv_stream_t *)&q->link, allocate, on_read);
	uv_read_start((uv_stream_t *)&q->errors, allocate_message, on_message);
	return q;
}

void qemu_stop(struct qemu *q, bool politely)
{
	if (!q)
		return;
	q->stopped = true;
	uv_timer_stop(&q->expectation);
	if (politely && q->running && !q->reason[0]) {
		qemu_flush(q);
		uv_timer_start(&q->end, on_end_timer, END_MS, 0);
	} else {
		kill_it(q);
	}
	close_if_over(q);
}
