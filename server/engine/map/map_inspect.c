/* map_inspect.c - to be written. */
