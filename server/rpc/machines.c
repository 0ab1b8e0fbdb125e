/* machines.c - to be written. */
