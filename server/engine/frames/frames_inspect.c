/* frames_inspect.c - to be written. */
