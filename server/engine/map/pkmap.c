/* pkmap.c - to be written. */
