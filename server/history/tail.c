/* tail.c - to be written. */
