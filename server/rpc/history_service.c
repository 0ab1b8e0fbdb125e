/* history_service.c - to be written. */
