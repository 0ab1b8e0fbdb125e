/* load_state.c - to be written. */
