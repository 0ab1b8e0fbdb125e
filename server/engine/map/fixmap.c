/* fixmap.c - to be written. */
