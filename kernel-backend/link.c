/*
 * link.c - a port of a virtio console over virtio-mmio (modern), as a byte stream.
 *
 * The port is number 1, a virtserialport: port 0 can only be a virtconsole, of which QEMU
 * drops the output while its socket is full. Ports other than 0 need the control queue; the
 * three messages that open ours are all we send there, and what the device would say is
 * known. Buffers are in the image, so their physical addresses follow from their virtual
 * ones. Output collects in the current transmit buffer and goes when it is full or when the
 * guest is about to wait for input: whoever waits for our answer has it before we wait for
 * theirs.
 *
 * Waiting is polling, as long as a busy daemon may take to send more, and then halting until
 * the device interrupts. At no other time does it interrupt.
 *
 * Layout and register numbers: virtio 1.1, sections 2.6, 4.2.2 and 5.3.
 */
#include "kernel.h"

enum {
	QUEUE_SIZE = 64,
	RX_BYTES = 4096, /* QEMU hands over at most this much at a time */
	TX_BYTES = 8192,
	TX_BUFFERS = QUEUE_SIZE / 2,
	CONTROL_TX = 3, /* numbers of queues: port 0 has 0 and 1 */
	RX = 4,
	TX = 5,
	PORT = 1,
	IDLE_POLLS = 300, /* some 150 us under TCG: one in flight comes within 40 */
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
	REG_INTERRUPT_STATUS = 0x060 / 4,
	REG_INTERRUPT_ACK = 0x064 / 4,
	REG_STATUS = 0x070 / 4,
	REG_QUEUE_DESC = 0x080 / 4,
	REG_QUEUE_DRIVER = 0x090 / 4,
	REG_QUEUE_DEVICE = 0x0a0 / 4,
};
enum { FEATURE_MULTIPORT = 1 << 1, FEATURE_1_VERSION_1 = 1 }; /* words 0 and 1 */
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

_Static_assert(sizeof(struct desc) == 16, "a descriptor of virtio");
_Static_assert(offsetof(struct avail, ring) == 4 && sizeof(struct avail) == 6 + 2 * QUEUE_SIZE,
	       "virtio's available ring");
_Static_assert(offsetof(struct used, ring) == 4 &&
		   offsetof(struct used, avail_event) == 4 + 8 * QUEUE_SIZE,
	       "virtio's used ring");

struct queue {
	struct desc desc[QUEUE_SIZE] __attribute__((aligned(16)));
	struct avail avail __attribute__((aligned(4)));
	volatile struct used used __attribute__((aligned(4)));
	u16 seen; /* of used.index */
};
static struct queue rx, tx, control_tx;

struct control {
	u32 port;
	u16 event, value;
};
/* DEVICE_READY, PORT_READY and PORT_OPEN: from then on the port takes and gives. */
static struct control opening[] = {{0xffffffff, 0, 1}, {PORT, 3, 1}, {PORT, 6, 1}};
_Static_assert(sizeof(struct control) == 8, "a control message");

static u8 rx_buffers[QUEUE_SIZE][RX_BYTES] __attribute__((aligned(64)));
static u8 tx_buffers[TX_BUFFERS][TX_BYTES] __attribute__((aligned(64)));

static volatile u32 *regs;
struct link_input link_input; /* in rx_current */
struct link_output link_output = {tx_buffers[0], TX_BYTES};
static u32 rx_current;
static bool rx_is_held; /* rx_current is a buffer, ours until all of it has been read */
static u32 tx_free;	/* buffers the device does not have, the one being filled included */
static u32 tx_current;
static u32 refills; /* since the device was last told */

#define barrier() __asm__ volatile("" : : : "memory") /* x86 keeps stores in order */

static void setup_queue(struct queue *q, u32 which)
{
	q->avail.flags = 1; /* no interrupts */
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

static bool has_used(struct queue *q)
{
	return q->seen != q->used.index;
}

static void offer(struct queue *q, u32 id)
{
	q->avail.ring[q->avail.index % QUEUE_SIZE] = (u16)id;
	barrier();
	q->avail.index++;
}

/* microvm's slots for devices; the pin of each is its number. The one device sits in one of
 * the last. */
#define MMIO_SLOTS	0xfeb00000u
#define MMIO_SLOT_BYTES 512u

static volatile u32 *find_console(u32 *ret_slot)
{
	for (u32 at = HOST_MMIO_PADDR; at < HOST_MMIO_PADDR + PAGE_SIZE; at += MMIO_SLOT_BYTES) {
		volatile u32 *r = (volatile u32 *)(uintptr_t)at;

		*ret_slot = (at - MMIO_SLOTS) / MMIO_SLOT_BYTES;
		if (r[REG_MAGIC] == 0x74726976 && r[REG_VERSION] == 2 && r[REG_DEVICE_ID] == 3)
			return r;
	}
	return NULL;
}

static void open_port(void)
{
	for (u32 i = 0; i < sizeof opening / sizeof opening[0]; i++) {
		control_tx.desc[i] =
		    (struct desc){host_paddr(&opening[i]), sizeof opening[i], 0, 0};
		offer(&control_tx, i);
	}
	regs[REG_QUEUE_NOTIFY] = CONTROL_TX;
}

void link_init(void)
{
	u32 slot;

	regs = find_console(&slot);
	if (!regs)
		power_off(0x10);
	regs[REG_STATUS] = 0;
	regs[REG_STATUS] = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
	regs[REG_DRIVER_FEATURES_SEL] = 0;
	regs[REG_DRIVER_FEATURES] = FEATURE_MULTIPORT;
	regs[REG_DRIVER_FEATURES_SEL] = 1;
	regs[REG_DRIVER_FEATURES] = FEATURE_1_VERSION_1;
	regs[REG_STATUS] = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
	if (!(regs[REG_STATUS] & STATUS_FEATURES_OK))
		panic("the console refuses virtio 1 or more than one port");
	setup_queue(&rx, RX);
	setup_queue(&tx, TX);
	setup_queue(&control_tx, CONTROL_TX);
	for (u32 i = 0; i < QUEUE_SIZE; i++) {
		rx.desc[i] =
		    (struct desc){host_paddr(rx_buffers[i]), RX_BYTES, DESC_DEVICE_WRITES, 0};
		offer(&rx, i);
	}
	for (u32 i = 0; i < TX_BUFFERS; i++)
		tx.desc[i] = (struct desc){host_paddr(tx_buffers[i]), 0, 0, 0};
	tx_free = TX_BUFFERS;
	cpu_route_interrupt(slot);
	regs[REG_STATUS] =
	    STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
	regs[REG_QUEUE_NOTIFY] = RX;
	open_port();
}

void link_use(volatile u32 *registers)
{
	regs = registers + ((u32)(uintptr_t)regs & (PAGE_SIZE - 1)) / 4;
}

void link_interrupted(void)
{
	regs[REG_INTERRUPT_ACK] = regs[REG_INTERRUPT_STATUS];
}

/* Until the device has used a buffer of this queue. */
static void await(struct queue *q)
{
	for (u32 polls = 0; polls < IDLE_POLLS; polls++) {
		if (has_used(q))
			return;
		__asm__ volatile("pause");
	}
	q->avail.flags = 0;
	/* The device sees that before we look again, or we see what it did. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	while (!has_used(q))
		cpu_halt();
	q->avail.flags = 1;
}

static void reclaim(void)
{
	while (has_used(&tx)) {
		tx.seen++;
		tx_free++;
	}
}

void link_flush(void)
{
	u32 length = TX_BYTES - link_output.left;

	if (!length)
		return;
	tx.desc[tx_current].length = length;
	offer(&tx, tx_current);
	tx_free--;
	regs[REG_QUEUE_NOTIFY] = TX;
	/* The device gives buffers back in the order in which it got them. */
	tx_current = (tx_current + 1) % TX_BUFFERS;
	link_output = (struct link_output){tx_buffers[tx_current], TX_BYTES};
	if (!tx_free)
		await(&tx);
	reclaim();
}

void link_write(const void *from, u32 bytes)
{
	const u8 *f = from;

	while (bytes) {
		u32 room = link_output.left, n = bytes < room ? bytes : room;

		__builtin_memcpy(link_output.at, f, n);
		link_add(n);
		f += n;
		bytes -= n;
		if (!link_output.left)
			link_flush();
	}
}

/* Gives back the buffer that has been read and waits for the next, after sending what is
 * ours to send. */
static void next_input(void)
{
	if (rx_is_held) {
		offer(&rx, rx_current);
		refills++;
	}
	if (!has_used(&rx))
		link_flush();
	if (refills >= QUEUE_SIZE / 2 || !has_used(&rx)) {
		regs[REG_QUEUE_NOTIFY] = RX;
		refills = 0;
	}
	await(&rx);
	rx_current = rx.used.ring[rx.seen % QUEUE_SIZE].id;
	link_input =
	    (struct link_input){rx_buffers[rx_current], rx.used.ring[rx.seen % QUEUE_SIZE].length};
	rx_is_held = true;
	rx.seen++;
}

void link_read(void *to, u32 bytes)
{
	u8 *t = to;

	while (bytes) {
		u32 n = bytes < link_input.left ? bytes : link_input.left;

		if (!n) {
			next_input();
			continue;
		}
		__builtin_memcpy(t, link_input.at, n);
		link_skip(n);
		t += n;
		bytes -= n;
	}
}
