/* connection.c - to be written. */
