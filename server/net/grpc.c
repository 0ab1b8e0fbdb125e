/* grpc.c - to be written. */
