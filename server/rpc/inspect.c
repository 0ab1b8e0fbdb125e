/* inspect.c - to be written. */
