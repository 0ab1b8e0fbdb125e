/* backend_sim.c - to be written. */
