/* buddy.c - to be written. */
