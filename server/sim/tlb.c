/* tlb.c - to be written. */
