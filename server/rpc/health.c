/* health.c - to be written. */
