/* memblock.c - to be written. */
