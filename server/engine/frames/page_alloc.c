/* page_alloc.c - to be written. */
