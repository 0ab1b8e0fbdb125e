/* zone.c - to be written. */
