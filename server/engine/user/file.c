/*
 * file.c - see file.h; and FileCreate, FileWrite, FileRead, FileDelete.
 *
 *   file.root -> 64 nodes -> 64 nodes -> 64 pfns           page index: 6 + 6 + 6 bits
 *
 * Invariants: (1) a node is there only if something hangs on it; (2) f->nr_pages
 * counts the pfns, cached_pages those of all files; (3) each is a frame of state
 * FRAME_PAGE_CACHE in no other place of any index; (4) bytes of the last page
 * beyond the file's end may hold what a mapping wrote there: they are zeroed
 * before the file grows over them.
 *
 * Frames come with GFP_HIGHUSER_MOVABLE, as those of Linux's page cache do
 * (inode_init_always()), and the machine's user_fallback policy narrows their
 * zones. Not modelled: disks, writeback, read-ahead, truncation.
 */
#include "file.h"
#include "../event.h"
#include "../frames/page_alloc.h"
#include "../frames/slab.h"
#include "../ops.h"

enum {
	LEVELS = 3,
	SLOT_BITS = 6,
	/* A payload touches this many pages at the most. */
	PAYLOAD_PAGES = ENGINE_MAX_DATA / PAGE_SIZE + 1,
};

/* ---- the index ---- */

static u32 slot_of(u32 index, u32 level)
{
	return index >> (SLOT_BITS * (LEVELS - 1 - level)) & (FILE_NODE_SLOTS - 1);
}

pfn_t file_page(const struct engine *e, const struct file *f, u32 index)
{
	const struct file_node *node = &f->root;

	for (u32 level = 0; level < LEVELS - 1; level++) {
		ref_t below = node->slot[slot_of(index, level)];

		if (!below)
			return 0;
		node = at(e, below);
	}
	return node->slot[slot_of(index, LEVELS - 1)];
}

static bool node_is_empty(const struct file_node *node)
{
	u32 any = 0;

	for (u32 i = 0; i < FILE_NODE_SLOTS; i++)
		any |= node->slot[i];
	return !any;
}

/* Frees the nodes on the way to index that nothing hangs on. */
static void index_prune(struct engine *e, struct file *f, u32 index)
{
	u32 *top = &f->root.slot[slot_of(index, 0)];
	struct file_node *middle = *top ? at(e, *top) : NULL;
	u32 *below = middle ? &middle->slot[slot_of(index, 1)] : NULL;

	if (below && *below && node_is_empty(at(e, *below))) {
		slab_free(e, SLAB_FILE_NODE, *below);
		*below = 0;
	}
	if (middle && node_is_empty(middle)) {
		slab_free(e, SLAB_FILE_NODE, *top);
		*top = 0;
	}
}

/* The lowest slot for index, its nodes made. NULL: no memory. */
static u32 *index_make(struct engine *e, struct file *f, u32 index)
{
	struct file_node *node = &f->root;

	for (u32 level = 0; level < LEVELS - 1; level++) {
		u32 *below = &node->slot[slot_of(index, level)];

		if (!*below)
			*below = slab_alloc(e, SLAB_FILE_NODE);
		if (!*below)
			return NULL;
		node = at(e, *below);
	}
	return &node->slot[slot_of(index, LEVELS - 1)];
}

pfn_t file_page_make(struct engine *e, struct file *f, u32 index)
{
	pfn_t pfn = file_page(e, f, index);
	struct page *p;
	u32 *slot;

	if (pfn)
		return pfn;
	slot = index_make(e, f, index);
	pfn = slot ? page_alloc_user(e, GFP_HIGHUSER_MOVABLE | __GFP_ZERO) : 0;
	if (!pfn) {
		index_prune(e, f, index);
		return 0;
	}
	p = page_of(e, pfn);
	page_set_state(p, FRAME_PAGE_CACHE);
	*page_mapcount(p) = 0;
	*page_pincount(p) = 0;
	*slot = pfn;
	f->nr_pages++;
	e->st->files.cached_pages++;
	return pfn;
}

/* The frame leaves the cache; whoever still uses it keeps it. */
static void page_leave(struct engine *e, struct file *f, pfn_t pfn)
{
	struct page *p = page_of(e, pfn);

	f->nr_pages--;
	e->st->files.cached_pages--;
	ENGINE_ASSERT(e, *page_mapcount(p) == 0);
	if (p->ref)
		page_set_state(p, FRAME_ANONYMOUS);
	else
		page_free(e, pfn, 0);
}

static void page_remove(struct engine *e, struct file *f, u32 index)
{
	u32 *slot = index_make(e, f, index); /* it is there: makes nothing */
	pfn_t pfn = *slot;

	*slot = 0;
	index_prune(e, f, index);
	page_leave(e, f, pfn);
}

void file_for_each_page(struct engine *e, struct file *f,
			void (*fn)(struct engine *e, struct file *f, u32 index, pfn_t pfn,
				   void *arg),
			void *arg)
{
	const u32 span = FILE_NODE_SLOTS * FILE_NODE_SLOTS;

	for (u32 index = 0; index < FILE_NODE_SLOTS * span;) {
		const u32 *top = &f->root.slot[slot_of(index, 0)];
		const struct file_node *middle = *top ? at(e, *top) : NULL;
		const struct file_node *low;

		if (!middle) {
			index += span;
			continue;
		}
		if (!middle->slot[slot_of(index, 1)]) {
			index += FILE_NODE_SLOTS;
			continue;
		}
		low = at(e, middle->slot[slot_of(index, 1)]);
		if (low->slot[slot_of(index, 2)])
			fn(e, f, index, low->slot[slot_of(index, 2)], arg);
		index++;
	}
}

/* ---- files ---- */

u32 file_create(struct engine *e, u32 size, u32 flags, ref_t *ret_file)
{
	struct number_table *files = &e->st->files.files;
	u32 status = numbers_reserve(e, files);
	struct file *f;
	ref_t ref;

	if (status != STATUS_OK)
		return status;
	ref = slab_alloc(e, SLAB_FILE);
	if (!ref) {
		numbers_trim(e, files);
		return STATUS_NO_MEMORY;
	}
	f = at(e, ref);
	f->number = numbers_add(e, files, ref);
	f->size = size;
	f->flags = flags;
	*ret_file = ref;
	return STATUS_OK;
}

static void free_nodes(struct engine *e, struct file *f)
{
	for (u32 i = 0; i < FILE_NODE_SLOTS; i++) {
		struct file_node *middle = f->root.slot[i] ? at(e, f->root.slot[i]) : NULL;

		for (u32 k = 0; middle && k < FILE_NODE_SLOTS; k++)
			if (middle->slot[k])
				slab_free(e, SLAB_FILE_NODE, middle->slot[k]);
		if (middle)
			slab_free(e, SLAB_FILE_NODE, f->root.slot[i]);
	}
}

static void drop_page(struct engine *e, struct file *f, u32 index, pfn_t pfn, void *arg)
{
	u32 *dropped = arg;

	(void)index;
	page_leave(e, f, pfn);
	if (++*dropped % ENGINE_YIELD_FRAMES == 0)
		port_yield(e);
}

void file_destroy(struct engine *e, ref_t ref)
{
	struct file *f = at(e, ref);
	u32 dropped = 0;

	ENGINE_ASSERT(e, f->vmas == 0);
	file_for_each_page(e, f, drop_page, &dropped);
	free_nodes(e, f);
	numbers_remove(e, &e->st->files.files, f->number);
	slab_free(e, SLAB_FILE, ref);
}

ref_t file_find(struct engine *e, u32 number)
{
	ref_t ref = numbers_find(e, &e->st->files.files, number);
	const struct file *f = at(e, ref);

	return ref && !(f->flags & FILE_SHMEM) ? ref : 0;
}

void file_map(struct engine *e, ref_t ref)
{
	struct file *f = at(e, ref);

	f->vmas++;
}

void file_unmap(struct engine *e, ref_t ref)
{
	struct file *f = at(e, ref);

	ENGINE_ASSERT(e, f->vmas > 0);
	if (--f->vmas == 0 && f->flags & FILE_SHMEM)
		file_destroy(e, ref);
}

/* ---- bytes ---- */

static u32 min_u32(u32 a, u32 b)
{
	return a < b ? a : b;
}

/* The part of a range of bytes that lies in one page. */
struct piece {
	u32 index, within; /* page, first byte in it */
	u32 bytes;
	u32 done; /* bytes of the pieces before */
};

/* Moves on to the next page of [offset, offset + length); from zeros, to the first. */
static bool next_piece(struct piece *p, u32 offset, u32 length)
{
	p->done += p->bytes;
	if (p->done == length)
		return false;
	offset += p->done;
	p->index = offset >> PAGE_SHIFT;
	p->within = offset % PAGE_SIZE;
	p->bytes = min_u32(PAGE_SIZE - p->within, length - p->done);
	return true;
}

static void frame_write(struct engine *e, pfn_t pfn, u32 within, const void *from, u32 bytes)
{
	va_t va = kmap_temporary(e, e->op_cpu, pfn);

	port_write(e, e->op_cpu, va + within, from, bytes);
	kunmap_temporary(e, e->op_cpu, va);
}

static void frame_read(struct engine *e, pfn_t pfn, u32 within, void *to, u32 bytes)
{
	va_t va = kmap_temporary(e, e->op_cpu, pfn);

	port_read(e, e->op_cpu, va + within, to, bytes);
	kunmap_temporary(e, e->op_cpu, va);
}

/* The file is about to grow over what lies behind its end in its last page. */
static void zero_tail(struct engine *e, const struct file *f)
{
	static const u8 zeros[PAGE_SIZE];
	u32 within = f->size % PAGE_SIZE;
	pfn_t pfn = within ? file_page(e, f, f->size >> PAGE_SHIFT) : 0;

	if (pfn)
		frame_write(e, pfn, within, zeros, PAGE_SIZE - within);
}

/* Frames for every page of the range, or none that was not there. */
static bool make_pages(struct engine *e, struct file *f, u32 offset, u32 length)
{
	u32 made[PAYLOAD_PAGES], nr = 0;
	struct piece p = {0};

	while (next_piece(&p, offset, length)) {
		if (file_page(e, f, p.index))
			continue;
		if (!file_page_make(e, f, p.index)) {
			while (nr)
				page_remove(e, f, made[--nr]);
			return false;
		}
		made[nr++] = p.index;
	}
	return true;
}

/* ---- the ops ---- */

u32 op_file_create(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	ref_t ref = 0;
	u32 status = file_create(e, (u32)op->args[0], 0, &ref);

	if (status == STATUS_OK)
		res->values[0] = ((struct file *)at(e, ref))->number;
	return status;
}

u32 op_file_write(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	ref_t ref = file_find(e, (u32)op->args[0]);
	struct file *f = at(e, ref);
	u32 offset = (u32)op->args[1], length = op->data_len;
	struct piece p = {0};

	if (!ref)
		return STATUS_NOT_FOUND;
	if (offset > FILE_MAX_BYTES || length > FILE_MAX_BYTES - offset)
		return STATUS_LIMIT;
	if (!make_pages(e, f, offset, length))
		return STATUS_NO_MEMORY;
	if (length && offset + length > f->size) {
		zero_tail(e, f);
		f->size = offset + length;
	}
	while (next_piece(&p, offset, length))
		frame_write(e, file_page(e, f, p.index), p.within, op->data + p.done, p.bytes);
	res->values[0] = length;
	return STATUS_OK;
}

u32 op_file_read(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	ref_t ref = file_find(e, (u32)op->args[0]);
	const struct file *f = at(e, ref);
	u32 offset = (u32)op->args[1], length;
	struct piece p = {0};

	if (!ref)
		return STATUS_NOT_FOUND;
	/* A read ends with the file. */
	length = offset < f->size ? min_u32((u32)op->args[2], f->size - offset) : 0;
	while (next_piece(&p, offset, length)) {
		pfn_t pfn = file_page(e, f, p.index);

		if (pfn)
			frame_read(e, pfn, p.within, res->data + p.done, p.bytes);
		else
			__builtin_memset(res->data + p.done, 0, p.bytes);
	}
	res->data_len = length;
	return STATUS_OK;
}

u32 op_file_delete(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	ref_t ref = file_find(e, (u32)op->args[0]);
	const struct file *f = at(e, ref);

	(void)res;
	if (!ref)
		return STATUS_NOT_FOUND;
	if (f->vmas)
		return STATUS_BUSY;
	file_destroy(e, ref);
	return STATUS_OK;
}
