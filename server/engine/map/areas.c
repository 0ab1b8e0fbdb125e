/* areas.c - to be written. */
