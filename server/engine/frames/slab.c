/* slab.c - to be written. */
