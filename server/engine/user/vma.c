/* vma.c - to be written. */
