/* machine.c - to be written. */
