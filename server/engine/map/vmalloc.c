/* vmalloc.c - to be written. */
