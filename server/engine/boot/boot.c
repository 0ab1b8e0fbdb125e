/* boot.c - to be written. */
