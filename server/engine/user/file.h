/*
 * file.h - files: numbered objects with contents, whose pages are frames of the
 * page cache, from HIGHMEM.
 */
#ifndef ENGINE_FILE_H
#define ENGINE_FILE_H

#include "../types.h"

struct file_state {
	u32 next_file; /* number of the next one, less 1 */
	u32 nr_files;
	u32 cached_pages;
	u32 reserved0;
	ref_t first, last; /* files, in order of number */
};

#endif
