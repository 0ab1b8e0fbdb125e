/* fault.c - to be written. */
