/*
 * backend_kernel.h - what the daemon tells the kernel back end before there are machines.
 */
#ifndef MACHINE_BACKEND_KERNEL_H
#define MACHINE_BACKEND_KERNEL_H

#include <uv.h>

#include "backend.h"

struct backend_kernel_options {
	uv_loop_t *loop;    /* runs on until every guest is reaped */
	const char *image;  /* the kernel; NULL: beside the daemon, or in its build folder */
	unsigned silent_ms; /* one that owes an answer, or has to start, and sends nothing is
			       lost; 0: 20000 */
	/* Folder for the guests' gdb stubs: a socket guest-N.sock for each, and a file
	 * guest-N.gdb of commands that connect to it. There are no deadlines then. NULL: none. */
	const char *gdb;
};

/* Without a call there is no kernel back end: create() says so. */
void backend_kernel_configure(const struct backend_kernel_options *options);

/* The process that runs the guest; 0: none. */
int backend_kernel_pid(const struct backend *b);

extern const struct backend_type backend_kernel;

#endif
