/*
 * load.h - clients of a daemon that keep it busy with seeded random ops, whatever
 * happens to it, and a ledger of what each was told.
 *
 * A client is a thread with a connection, a token and an owner label of its own. Its
 * ops carry names, so that libzoned finds out by itself what became of those in flight
 * when the daemon died. Half of the clients stream (Run), half make calls; one more
 * makes, forks and destroys machines.
 */
#ifndef TESTS_HISTORY_LOAD_H
#define TESTS_HISTORY_LOAD_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine.h"
#include "zoned.h"

enum { LOAD_DATA_MAX = 600, LOAD_MACHINES_MAX = 4096 };

/* An op, as a client sent it and as it was answered. */
struct load_op {
	uint32_t machine; /* in load.machines */
	uint32_t code;
	uint64_t args[OP_ARGS];
	uint32_t data_len;
	uint8_t data_seed; /* data[i] is data_seed + i */
	bool labelled;	   /* by the client's own label */
	uint64_t sequence; /* of the client's token */
	bool answered;
	bool refused; /* by a gRPC status: it never was */
	uint64_t number;
	uint32_t status;
	uint64_t values[OP_VALUES];
};

enum load_life { LOAD_UNSURE, LOAD_ALIVE, LOAD_ENDED };

/* A machine that was asked for, by Create or Fork. */
struct load_machine {
	char name[32];
	uint64_t id; /* 0: never came to be */
	struct engine_config config;
	enum load_life life;
};

struct load;

struct load_client {
	struct load *load;
	unsigned index;
	uint64_t token;
	char label[24];
	uint64_t random;
	struct load_op *ops;
	size_t nr_ops, max_ops;
	struct zoned *z;
	/* What it has and may give back, from answers. */
	struct {
		uint32_t kind;
		uint64_t a, b;
		uint32_t machine;
	} things[64];
	unsigned nr_things;
	pthread_t thread;
};

struct load {
	const char *address;
	unsigned nr_clients; /* the last one makes machines */
	struct load_client *clients;
	/* The first two are there from the start and stay. */
	struct load_machine machines[LOAD_MACHINES_MAX];
	atomic_uint nr_machines;
	atomic_bool stop;
	atomic_ulong answered;
};

/* Makes the first machines and starts the clients. The daemon must serve. */
void load_start(struct load *load, const char *address, unsigned nr_clients, uint64_t seed);
/* Every op in flight is answered when this returns, so the daemon must run. */
void load_stop(struct load *load);
void load_free(struct load *load);

/* Ends the program with a sentence. */
_Noreturn void load_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
