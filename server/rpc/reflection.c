/* reflection.c - to be written. */
