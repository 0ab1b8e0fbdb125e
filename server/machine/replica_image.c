/*
 * replica_image.c - a replica as bytes: what a checkpoint keeps.
 *
 * An image is a list of pieces. Each is one zstd frame, with a checksum, around
 *
 *   struct piece_head   what it is
 *   PIECE_HOST          the host's state of the CPUs (sim_host_state)
 *   PIECE_FRAMES        `count` frame numbers of 32 bits, then as many frames
 *
 * The host's piece is first. Everything is little-endian, as every host is that zoned runs
 * on. A reader takes nothing for granted: the bytes come from a file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "replica_priv.h"

#define PIECE_MAGIC 0x317a6d69u /* "imz1": a change of the layout changes it */

enum {
	PIECE_HOST = 1,
	PIECE_FRAMES = 2,
	PIECE_FRAMES_MAX = 256,
	LEVEL = 1, /* a third more than the best, at a tenth of the time */
};

struct piece_head {
	u32 magic, kind;
	u32 count; /* frames, or bytes of the host's state */
	u32 reserved0;
};

enum {
	FRAMES_RAW = sizeof(struct piece_head) + PIECE_FRAMES_MAX * (sizeof(u32) + PAGE_SIZE),
	RAW_MAX = FRAMES_RAW > (1 << 20) ? FRAMES_RAW : (1 << 20), /* the host's may be larger */
};

struct replica_save {
	struct replica *replica;
	struct sim_walk *walk;
	ZSTD_CCtx *zstd;
	bool host_done;
	u64 frames;
	size_t out_max;
	u8 *raw, *out;
};

/* ---- keeping ---- */

void replica_save_end(struct replica_save *s)
{
	if (!s)
		return;
	sim_walk_free(s->walk);
	ZSTD_freeCCtx(s->zstd);
	free(s->raw);
	free(s->out);
	free(s);
}

struct replica_save *replica_save_begin(struct replica *r)
{
	struct replica_save *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->replica = r;
	s->walk = sim_walk_new(r->sim);
	s->zstd = ZSTD_createCCtx();
	s->out_max = ZSTD_compressBound(RAW_MAX);
	s->raw = malloc(RAW_MAX);
	s->out = malloc(s->out_max);
	if (s->walk && s->zstd && s->raw && s->out &&
	    !ZSTD_isError(ZSTD_CCtx_setParameter(s->zstd, ZSTD_c_compressionLevel, LEVEL)) &&
	    !ZSTD_isError(ZSTD_CCtx_setParameter(s->zstd, ZSTD_c_checksumFlag, 1)))
		return s;
	replica_save_end(s);
	return NULL;
}

static size_t put_host(struct replica_save *s)
{
	size_t size = sim_host_state_size(s->replica->sim);
	struct piece_head head = {PIECE_MAGIC, PIECE_HOST, (u32)size, 0};

	memcpy(s->raw, &head, sizeof head);
	memcpy(s->raw + sizeof head, sim_host_state(s->replica->sim), size);
	return sizeof head + size;
}

/* 0: there are no more. */
static size_t put_frames(struct replica_save *s)
{
	struct piece_head head = {PIECE_MAGIC, PIECE_FRAMES, 0, 0};
	u8 *numbers = s->raw + sizeof head, *frames = numbers + PIECE_FRAMES_MAX * sizeof(u32);
	const u8 *bytes;
	pfn_t pfn;

	while (head.count < PIECE_FRAMES_MAX &&
	       (pfn = sim_walk_next(s->walk, &bytes)) != 0xffffffffu) {
		memcpy(numbers + head.count * sizeof pfn, &pfn, sizeof pfn);
		memcpy(frames + (size_t)head.count * PAGE_SIZE, bytes, PAGE_SIZE);
		head.count++;
	}
	memcpy(s->raw, &head, sizeof head);
	/* The last piece has fewer numbers before its frames. */
	memmove(numbers + head.count * sizeof pfn, frames, (size_t)head.count * PAGE_SIZE);
	s->frames += head.count;
	return head.count ? sizeof head + head.count * (sizeof pfn + (size_t)PAGE_SIZE) : 0;
}

size_t replica_save_next(struct replica_save *s, const u8 **ret)
{
	size_t raw = s->host_done ? put_frames(s) : put_host(s), length;

	s->host_done = true;
	if (!raw)
		return 0;
	length = ZSTD_compress2(s->zstd, s->out, s->out_max, s->raw, raw);
	/* The room is zstd's own bound: only memory can fail it. */
	if (ZSTD_isError(length))
		abort();
	*ret = s->out;
	return length;
}

u64 replica_save_frames(const struct replica_save *s)
{
	return s->frames;
}

/* ---- making it again ---- */

static bool damaged(struct engine_error *why, const char *text)
{
	snprintf(why->text, sizeof why->text, "%s", text);
	return false;
}

static bool take_frames(struct replica *r, const u8 *raw, u32 count, struct engine_error *why)
{
	const u8 *frames = raw + count * sizeof(u32);

	for (u32 i = 0; i < count; i++) {
		pfn_t pfn;
		u8 *to;

		memcpy(&pfn, raw + i * sizeof pfn, sizeof pfn);
		to = sim_frame(r->sim, pfn);
		if (!to)
			return damaged(why, "a frame that the machine does not have");
		memcpy(to, frames + (size_t)i * PAGE_SIZE, PAGE_SIZE);
	}
	return true;
}

static bool take_piece(struct replica *r, const u8 *raw, size_t length, struct engine_error *why)
{
	struct piece_head head;

	if (length < sizeof head)
		return damaged(why, "a piece without its head");
	memcpy(&head, raw, sizeof head);
	raw += sizeof head;
	length -= sizeof head;
	if (head.magic != PIECE_MAGIC)
		return damaged(why, "a piece of another version");
	if (head.kind == PIECE_HOST)
		return (head.count == length && sim_set_host_state(r->sim, raw, length)) ||
		       damaged(why, "of another number of CPUs, or another version");
	if (head.kind != PIECE_FRAMES || head.count > PIECE_FRAMES_MAX ||
	    length != head.count * (sizeof(u32) + (size_t)PAGE_SIZE))
		return damaged(why, "a piece of the wrong length");
	return take_frames(r, raw, head.count, why);
}

bool replica_load_piece(struct replica *r, const u8 *bytes, size_t length, struct engine_error *why)
{
	unsigned long long size = ZSTD_getFrameContentSize(bytes, length);
	u8 *raw;
	bool ok;

	if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN || size > RAW_MAX)
		return damaged(why, "a piece that is not compressed bytes");
	raw = malloc(RAW_MAX);
	if (!raw)
		return damaged(why, "no memory");
	ok = !ZSTD_isError(ZSTD_decompress(raw, RAW_MAX, bytes, length))
		 ? take_piece(r, raw, (size_t)size, why)
		 : damaged(why, "a piece whose bytes have changed");
	free(raw);
	return ok;
}
