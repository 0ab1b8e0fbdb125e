/* marks.c - to be written. */
