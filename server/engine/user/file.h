/*
 * file.h - files: numbered objects with contents, whose pages are frames of the
 * page cache, from HIGHMEM.
 *
 * A page that was never written has no frame and reads as zeros, until a mapping
 * touches it. A frame of the cache belongs to its file: it stays when mappings go,
 * and goes with the file. What lies behind a shared anonymous mapping is a file
 * too, as in Linux (shmem): it has a number, answers to no File op, and goes with
 * its last VMA.
 */
#ifndef ENGINE_FILE_H
#define ENGINE_FILE_H

#include "numbers.h"

enum {
	FILE_MAX_BYTES = 0x40000000, /* FileCreate's limit; FileWrite extends up to it */
	FILE_NODE_SLOTS = 64,	     /* 64^3 pages are 1 GiB */
	FILE_SHMEM = 1,		     /* flags: behind a shared anonymous mapping */
};

_Static_assert(FILE_MAX_BYTES == FILE_NODE_SLOTS * FILE_NODE_SLOTS * FILE_NODE_SLOTS * PAGE_SIZE,
	       "three levels index the largest file");

/* Level of the index: refs of nodes, or in the lowest level pfns. 0: nothing. */
struct file_node {
	u32 slot[FILE_NODE_SLOTS];
};

struct file {
	u32 number;
	u32 size;     /* bytes */
	u32 flags;    /* FILE_SHMEM */
	u32 vmas;     /* VMAs that map it */
	u32 nr_pages; /* in the cache */
	u32 reserved0;
	struct file_node root;
};

struct file_state {
	u32 cached_pages; /* of all files */
	u32 reserved0;
	struct number_table files; /* of struct file */
};

/* Makes a file of zeros. OK, NO_MEMORY or LIMIT. */
u32 file_create(struct engine *e, u32 size, u32 flags, ref_t *ret_file);

/* Takes a file that no VMA maps away, with its pages. A page that is still in use
 * (pinned, mapped by the kernel) becomes an anonymous frame that goes with its
 * last use. */
void file_destroy(struct engine *e, ref_t file);

/* A File op's file: not a shared anonymous mapping's. 0: none. */
ref_t file_find(struct engine *e, u32 number);

/* Frame of a page of the file, by its index; 0: none yet. */
pfn_t file_page(const struct engine *e, const struct file *f, u32 index);

/* The same, making a zeroed frame where there is none. 0: no memory, and nothing
 * has changed. The index is below FILE_MAX_BYTES / PAGE_SIZE. */
pfn_t file_page_make(struct engine *e, struct file *f, u32 index);

/* Pages that hold the file's bytes: an access beyond them is FAULT_BUS. */
static inline u32 file_pages(const struct file *f)
{
	return pages_of(f->size);
}

/* One VMA more or less maps the file. The last one takes a FILE_SHMEM along. */
void file_map(struct engine *e, ref_t file);
void file_unmap(struct engine *e, ref_t file);

/* Calls fn for every page of the file, in order of index. */
void file_for_each_page(struct engine *e, struct file *f,
			void (*fn)(struct engine *e, struct file *f, u32 index, pfn_t pfn,
				   void *arg),
			void *arg);

#endif
