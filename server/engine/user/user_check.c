/* user_check.c - to be written. */
