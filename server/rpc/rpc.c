/* rpc.c - to be written. */
