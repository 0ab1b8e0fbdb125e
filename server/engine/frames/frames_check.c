/* frames_check.c - to be written. */
