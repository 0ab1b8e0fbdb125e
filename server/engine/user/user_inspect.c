/* user_inspect.c - to be written. */
