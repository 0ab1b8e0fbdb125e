/*
 * dma.c - see dma.h; and DmaMap, DmaSync, DmaUnmap.
 *
 * Invariants: (1) a mapping is one use of the block that its frames are in; (2) the
 * last byte that a device is told of is below 2^address_bits; (3) a bounce block
 * has state FRAME_BOUNCE, is as large as the next power of two of the pages that
 * are mapped, and belongs to one mapping.
 *
 * A device that reaches all of lowmem bounces through NORMAL (GFP_KERNEL, which
 * falls back to DMA by itself), one that reaches less through DMA. A preset without
 * a DMA zone serves GFP_DMA from NORMAL; what the device does not reach there is
 * given back, and the answer is NO_MEMORY.
 *
 * Directions as in Linux's streaming API: the device's copy is filled when it is
 * mapped or synced for the device, and copied back when it is synced for the CPU or
 * unmapped. A buffer that the device only fills begins as zeros, so that it never
 * shows what was in the frames before. Not modelled: IOMMUs, swiotlb's fixed pool,
 * coherent memory.
 */
#include "dma.h"
#include "../boot/boot.h"
#include "../event.h"
#include "../frames/page_alloc.h"
#include "../frames/slab.h"
#include "../map/use.h"
#include "../ops.h"
#include "../text.h"
#include "../wings.h"

struct dma_mapping {
	u32 number;
	pfn_t pfn, head; /* first frame, and the block that it is in */
	u32 length;	 /* bytes */
	u32 address_bits, direction;
	pfn_t bounce; /* 0: the device uses the frames themselves */
	u32 bounce_order;
};

_Static_assert(sizeof(struct dma_mapping) % 8 == 0, "a slab object");

static struct dma_state *state_of(const struct engine *e)
{
	return &e->st->dma;
}

u32 dma_boot(struct engine *e)
{
	slab_setup(e, SLAB_DMA, sizeof(struct dma_mapping));
	return STATUS_OK;
}

static bool reaches(pfn_t pfn, u32 length, u32 address_bits)
{
	u64 last = ((u64)pfn << PAGE_SHIFT) + length - 1;

	return address_bits >= 64 || !(last >> address_bits);
}

static u32 order_of(u32 pages)
{
	u32 order = 0;

	while (1u << order < pages)
		order++;
	return order;
}

static u32 bounce_gfp(const struct engine *e, u32 address_bits)
{
	return reaches(0, e->st->layout.low_end_pfn << PAGE_SHIFT, address_bits)
		   ? GFP_KERNEL
		   : GFP_KERNEL | __GFP_DMA;
}

/* A block that the device reaches. False: none. */
static bool bounce_alloc(struct engine *e, struct dma_mapping *m)
{
	u32 gfp = bounce_gfp(e, m->address_bits);

	if (m->direction == DMA_FROM_DEVICE)
		gfp |= __GFP_ZERO;
	m->bounce_order = order_of(pages_of(m->length));
	m->bounce = page_alloc(e, gfp, m->bounce_order);
	if (!m->bounce)
		return false;
	if (!reaches(m->bounce, m->length, m->address_bits)) {
		page_free(e, m->bounce, m->bounce_order);
		return false;
	}
	page_set_state(page_of(e, m->bounce), FRAME_BOUNCE);
	state_of(e)->bounced_pages += 1u << m->bounce_order;
	event_bounce_made(e, m->number, m->pfn, m->bounce, 1u << m->bounce_order,
			  zone_of_pfn(e, m->bounce));
	return true;
}

static void copy_bytes(struct engine *e, va_t to, va_t from, u32 bytes)
{
	u8 buffer[512];

	for (u32 done = 0, n; done < bytes; done += n) {
		n = bytes - done < sizeof buffer ? bytes - done : (u32)sizeof buffer;
		port_read(e, e->op_cpu, from + done, buffer, n);
		port_write(e, e->op_cpu, to + done, buffer, n);
	}
}

static void copy_frames(struct engine *e, pfn_t to, pfn_t from, u32 length)
{
	for (u32 i = 0; i < pages_of(length); i++) {
		u32 rest = length - (i << PAGE_SHIFT);
		va_t to_va = kmap_temporary(e, e->op_cpu, to + i);
		va_t from_va = kmap_temporary(e, e->op_cpu, from + i);

		if (rest >= PAGE_SIZE)
			port_copy_page(e, e->op_cpu, to_va, from_va);
		else
			copy_bytes(e, to_va, from_va, rest);
		kunmap_temporary(e, e->op_cpu, from_va);
		kunmap_temporary(e, e->op_cpu, to_va);
	}
}

static void copy_to_device(struct engine *e, const struct dma_mapping *m)
{
	if (!m->bounce || m->direction == DMA_FROM_DEVICE)
		return;
	copy_frames(e, m->bounce, m->pfn, m->length);
	event_bounce_copied(e, m->number, m->length, true);
}

static void copy_from_device(struct engine *e, const struct dma_mapping *m)
{
	if (!m->bounce || m->direction == DMA_TO_DEVICE)
		return;
	copy_frames(e, m->pfn, m->bounce, m->length);
	event_bounce_copied(e, m->number, m->length, false);
}

/* Is every frame of the range in one allocated block that is not the engine's own?
 * The status, and the block. */
static u32 find_block(struct engine *e, pfn_t pfn, u32 length, pfn_t *ret_head)
{
	struct page *block;
	u32 status = frame_mappable(e, pfn, &block);
	pfn_t head;

	if (status != STATUS_OK)
		return status;
	head = (pfn_t)(block - e->mem_map);
	if (block_is_own(block) || pages_of(length) > (1u << page_order(block)) - (pfn - head))
		return STATUS_INVALID;
	*ret_head = head;
	return STATUS_OK;
}

u32 op_dma_map(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct number_table *handles = &state_of(e)->handles;
	struct dma_mapping *m;
	pfn_t head = 0;
	u32 status = find_block(e, (pfn_t)op->args[0], (u32)op->args[1], &head);
	ref_t ref;

	if (status == STATUS_OK)
		status = numbers_reserve(e, handles);
	if (status != STATUS_OK)
		return status;
	ref = slab_alloc(e, SLAB_DMA);
	if (!ref) {
		numbers_trim(e, handles);
		return STATUS_NO_MEMORY;
	}
	m = at(e, ref);
	*m = (struct dma_mapping){
	    .number = handles->last + 1,
	    .pfn = (pfn_t)op->args[0],
	    .head = head,
	    .length = (u32)op->args[1],
	    .address_bits = (u32)op->args[2],
	    .direction = (u32)op->args[3],
	};
	if (!reaches(m->pfn, m->length, m->address_bits) && !bounce_alloc(e, m)) {
		slab_free(e, SLAB_DMA, ref);
		numbers_trim(e, handles);
		return STATUS_NO_MEMORY;
	}
	numbers_add(e, handles, ref);
	frame_use(e, m->pfn);
	copy_to_device(e, m);
	res->values[0] = m->number;
	res->values[1] = (u64)(m->bounce ? m->bounce : m->pfn) << PAGE_SHIFT;
	res->values[2] = m->bounce != 0;
	return STATUS_OK;
}

u32 op_dma_sync(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	ref_t ref = numbers_find(e, &state_of(e)->handles, (u32)op->args[0]);

	(void)res;
	if (!ref)
		return STATUS_NOT_FOUND;
	if (op->args[1] == DMA_FOR_DEVICE)
		copy_to_device(e, at(e, ref));
	else
		copy_from_device(e, at(e, ref));
	return STATUS_OK;
}

u32 op_dma_unmap(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	ref_t ref = numbers_find(e, &state_of(e)->handles, (u32)op->args[0]);
	struct dma_mapping *m = at(e, ref);

	(void)res;
	if (!ref)
		return STATUS_NOT_FOUND;
	copy_from_device(e, m);
	if (m->bounce) {
		event_bounce_released(e, m->number, m->bounce);
		state_of(e)->bounced_pages -= 1u << m->bounce_order;
		page_free(e, m->bounce, m->bounce_order);
	}
	frame_unuse(e, m->pfn);
	numbers_remove(e, &state_of(e)->handles, m->number);
	slab_free(e, SLAB_DMA, ref);
	return STATUS_OK;
}

/* ---- audit ---- */

static struct dma_mapping *mapping_at(const struct engine *e, u32 i)
{
	return at(e, numbers_at(e, &state_of(e)->handles, i));
}

void dma_for_each_use(struct engine *e, void (*fn)(struct engine *e, pfn_t head, void *arg),
		      void *arg)
{
	for (u32 i = 0; i < state_of(e)->handles.nr; i++)
		fn(e, mapping_at(e, i)->head, arg);
}

static bool check_bounce(struct engine *e, const struct dma_mapping *m, struct engine_error *why)
{
	const struct page *p = page_of(e, m->bounce);

	if (page_allocated_head(e, m->bounce) != m->bounce || page_state(p) != FRAME_BOUNCE ||
	    page_order(p) != m->bounce_order)
		return refuse(why, "DMA handle %u: its bounce block %x is none", m->number,
			      m->bounce);
	if (1u << m->bounce_order < pages_of(m->length))
		return refuse(why, "DMA handle %u: its bounce block is too small", m->number);
	return true;
}

bool check_dma(struct engine *e, struct engine_error *why)
{
	u32 bounced = 0;

	if (!numbers_check(e, &state_of(e)->handles))
		return refuse(why, "DMA handles are out of order");
	for (u32 i = 0; i < state_of(e)->handles.nr; i++) {
		const struct dma_mapping *m = mapping_at(e, i);

		if (page_allocated_head(e, m->pfn) != m->head)
			return refuse(why, "DMA handle %u maps frame %x of a block that is gone",
				      m->number, m->pfn);
		if (!reaches(m->bounce ? m->bounce : m->pfn, m->length, m->address_bits))
			return refuse(why, "DMA handle %u is beyond its device's reach", m->number);
		if (m->bounce) {
			bounced += 1u << m->bounce_order;
			if (!check_bounce(e, m, why))
				return false;
		}
	}
	if (bounced != state_of(e)->bounced_pages)
		return refuse(why, "%u pages bounce, %u are counted", bounced,
			      state_of(e)->bounced_pages);
	return true;
}
