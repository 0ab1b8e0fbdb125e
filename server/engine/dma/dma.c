/* dma.c - to be written. */
