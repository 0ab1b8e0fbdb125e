/* pgtable.c - to be written. */
