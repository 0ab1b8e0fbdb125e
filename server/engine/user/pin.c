/* pin.c - to be written. */
