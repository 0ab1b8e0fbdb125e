/* kmap_local.c - to be written. */
