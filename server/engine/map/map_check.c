/* map_check.c - to be written. */
