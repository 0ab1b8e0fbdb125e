/* call.c - to be written. */
