/* turn.c - to be written. */
