/*
 * link.c - a virtio console over virtio-mmio (modern), polled, as a byte stream.
 *
 * Queue 0 receives, queue 1 transmits; one port, no control queue. Buffers are in
 * the image, so their physical addresses follow from their virtual ones. Output
 * collects in the current transmit buffer and goes when it is full or when the
 * guest is about to wait for input: whoever waits for our answer has it before we
 * wait for theirs.
 *
 * Layout and register numbers: virtio 1.1, sections 2.6 and 4.2.2.
 */
#include "kernel.h"

enum {
	QUEUE_SIZE = 64,
	RX_BYTES = 4096, /* QEMU hands over at most this much at a time */
	TX_BYTES = 8192,
	RX = 0,
	TX = 1,
};

/* Registers, as indexes of u32. */
enum {
	REG_MAGIC = 0x000 / 4,
	REG_VERSION = 0x004 / 4,
	REG_DEVICE_ID = 0x008 / 4,
	REG_DRIVER_FEATURES = 0x020 / 4,
	REG_DRIVER_FEATURES_SEL = 0x024 / 4,
	REG_QUEUE_SEL = 0x030 / 4,
	REG_QUEUE_NUM_MAX = 0x034 / 4,
	REG_QUEUE_NUM = 0x038 / 4,
	REG_QUEUE_READY = 0x044 / 4,
	REG_QUEUE_NOTIFY = 0x050 / 4,
	REG_STATUS = 0x070 / 4,
	REG_QUEUE_DESC = 0x080 / 4,
	REG_QUEUE_DRIVER = 0x090 / 4,
	REG_QUEUE_DEVICE = 0x0a0 / 4,
	REG_EMERGENCY_WRITE = 0x108 / 4,
};
enum { STATUS_ACKNOWLEDGE = 1, STATUS_DRIVER = 2, STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8 };

struct desc {
	u64 paddr;
	u32 length;
	u16 flags, next;
};
enum { DESC_DEVICE_WRITES = 2 };

struct avail {
	u16 flags, index, ring[QUEUE_SIZE], used_event;
};

struct used {
	u16 flags, index;
	struct {
		u32 id, length;
	} ring[QUEUE_SIZE];
	u16 avail_event;
};

static struct queue {
	struct desc desc[QUEUE_SIZE] __attribute__((aligned(16)));
	struct avail avail __attribute__((aligned(4)));
	volatile struct used used __attribute__((aligned(4)));
	u16 seen; /* of used.index */
} queues[2];

static u8 rx_buffers[QUEUE_SIZE][RX_BYTES] __attribute__((aligned(64)));
static u8 tx_buffers[QUEUE_SIZE][TX_BYTES] __attribute__((aligned(64)));

static volatile u32 *regs;
static u32 rx_at, rx_left; /* in the received buffer at the head */
static u32 rx_current;
static u32 tx_length; /* in the buffer being filled */
static u32 tx_free;   /* buffers the device does not have, this one included */
static u32 tx_current;
static u32 refills; /* since the device was last told */

#define barrier() __asm__ volatile("" : : : "memory") /* x86 keeps stores in order */

static void setup_queue(u32 which)
{
	struct queue *q = &queues[which];

	regs[REG_QUEUE_SEL] = which;
	if (regs[REG_QUEUE_NUM_MAX] < QUEUE_SIZE)
		panic("console queue %u is too small", which);
	regs[REG_QUEUE_NUM] = QUEUE_SIZE;
	regs[REG_QUEUE_DESC] = host_paddr(q->desc);
	regs[REG_QUEUE_DESC + 1] = 0;
	regs[REG_QUEUE_DRIVER] = host_paddr(&q->avail);
	regs[REG_QUEUE_DRIVER + 1] = 0;
	regs[REG_QUEUE_DEVICE] = host_paddr(&q->used);
	regs[REG_QUEUE_DEVICE + 1] = 0;
	regs[REG_QUEUE_READY] = 1;
}

static void offer(struct queue *q, u32 id)
{
	q->avail.ring[q->avail.index % QUEUE_SIZE] = (u16)id;
	barrier();
	q->avail.index++;
}

/* The one device sits in the last slots of microvm's range. */
static volatile u32 *find_console(void)
{
	for (u32 at = HOST_MMIO_PADDR; at < HOST_MMIO_PADDR + PAGE_SIZE; at += 512) {
		volatile u32 *r = (volatile u32 *)(uintptr_t)at;

		if (r[REG_MAGIC] == 0x74726976 && r[REG_VERSION] == 2 && r[REG_DEVICE_ID] == 3)
			return r;
	}
	return NULL;
}

void link_init(void)
{
	regs = find_console();
	if (!regs)
		power_off(0x10);
	regs[REG_STATUS] = 0;
	regs[REG_STATUS] = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
	regs[REG_DRIVER_FEATURES_SEL] = 0;
	regs[REG_DRIVER_FEATURES] = 0;
	regs[REG_DRIVER_FEATURES_SEL] = 1;
	regs[REG_DRIVER_FEATURES] = 1; /* VIRTIO_F_VERSION_1 */
	regs[REG_STATUS] = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
	if (!(regs[REG_STATUS] & STATUS_FEATURES_OK))
		panic("the console refuses virtio 1");
	setup_queue(RX);
	setup_queue(TX);
	for (u32 i = 0; i < QUEUE_SIZE; i++) {
		queues[RX].desc[i] =
		    (struct desc){host_paddr(rx_buffers[i]), RX_BYTES, DESC_DEVICE_WRITES, 0};
		queues[TX].desc[i] = (struct desc){host_paddr(tx_buffers[i]), 0, 0, 0};
		offer(&queues[RX], i);
	}
	queues[RX].avail.flags = queues[TX].avail.flags = 1; /* no interrupts: we poll */
	tx_free = QUEUE_SIZE;
	regs[REG_STATUS] =
	    STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
	regs[REG_QUEUE_NOTIFY] = RX;
}

void link_use(volatile u32 *registers)
{
	regs = registers + ((u32)(uintptr_t)regs & (PAGE_SIZE - 1)) / 4;
}

static void reclaim(void)
{
	struct queue *q = &queues[TX];

	while (q->seen != q->used.index) {
		q->seen++;
		tx_free++;
	}
}

void link_flush(void)
{
	if (!tx_length)
		return;
	queues[TX].desc[tx_current].length = tx_length;
	offer(&queues[TX], tx_current);
	tx_free--;
	regs[REG_QUEUE_NOTIFY] = TX;
	/* The device gives buffers back in the order in which it got them. */
	tx_current = (tx_current + 1) % QUEUE_SIZE;
	tx_length = 0;
	while (reclaim(), !tx_free)
		__asm__ volatile("pause");
}

void link_write(const void *from, u32 bytes)
{
	const u8 *f = from;

	while (bytes) {
		u32 room = TX_BYTES - tx_length, n = bytes < room ? bytes : room;

		__builtin_memcpy(tx_buffers[tx_current] + tx_length, f, n);
		tx_length += n;
		f += n;
		bytes -= n;
		if (tx_length == TX_BYTES)
			link_flush();
	}
}

/* Waits for the next buffer of input, after sending what is ours to send. */
static void next_input(void)
{
	struct queue *q = &queues[RX];

	if (q->seen == q->used.index) {
		link_flush();
		if (refills) {
			regs[REG_QUEUE_NOTIFY] = RX;
			refills = 0;
		}
		while (q->seen == q->used.index)
			__asm__ volatile("pause");
	}
	rx_current = q->used.ring[q->seen % QUEUE_SIZE].id;
	rx_left = q->used.ring[q->seen % QUEUE_SIZE].length;
	rx_at = 0;
	q->seen++;
}

void link_read(void *to, u32 bytes)
{
	u8 *t = to;

	while (bytes) {
		if (!rx_left) {
			next_input();
			continue;
		}
		u32 n = bytes < rx_left ? bytes : rx_left;

		__builtin_memcpy(t, rx_buffers[rx_current] + rx_at, n);
		rx_at += n;
		rx_left -= n;
		t += n;
		bytes -= n;
		if (!rx_left) {
			offer(&queues[RX], rx_current);
			if (++refills >= QUEUE_SIZE / 2) {
				regs[REG_QUEUE_NOTIFY] = RX;
				refills = 0;
			}
		}
	}
}

void link_emergency(const char *text)
{
	if (!regs)
		return;
	while (*text)
		regs[REG_EMERGENCY_WRITE] = (u8)*text++;
}
