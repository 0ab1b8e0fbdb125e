/* fiber.c - to be written. */
