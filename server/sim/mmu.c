/* mmu.c - to be written. */
