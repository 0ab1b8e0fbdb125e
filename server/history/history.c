/* history.c - to be written. */
