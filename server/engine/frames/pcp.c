/* pcp.c - to be written. */
