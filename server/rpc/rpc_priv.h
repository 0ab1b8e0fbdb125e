/*
 * rpc_priv.h - what the services share.
 */
#ifndef RPC_PRIV_H
#define RPC_PRIV_H

#include "codec.h"
#include "past.h"
#include "rpc.h"

/* A client receives at most 4 MiB by default; a message stays below this. */
enum { MESSAGE_MAX = 3500 << 10 };

struct rpc {
	struct turn *turn;
	struct machines *machines;
	struct history *history;
	struct wire_buffer scratch; /* for one message at a time */
};
extern struct rpc rpc;

/* Methods of a service, for the router; the last one has no path. */
extern const struct net_method machines_methods[], history_methods[], memory_methods[];
/* What every op's method uses. */
extern const struct net_handler memory_op_handler;

void memory_flush(void);
void memory_close(void);
void history_service_stop(void);

/* gRPC status of an error, and the end of a call with it. */
enum net_status rpc_status(enum machine_error error);
void rpc_fail(struct net_call *call, enum machine_error error, const char *why);
/* The same for an op or question that a machine refused: says why it is LOST. */
const char *rpc_refusal(struct machine *m, enum machine_error error);

/* The history's number of the connection that a call came by. */
uint64_t rpc_client(struct net_call *call);

/* A machine by name; ends the call with NOT_FOUND if there is none. */
struct machine *rpc_find_machine(struct net_call *call, const char *name, size_t length);
/* The number of a machine that may have ended, as history_machine_ever() finds it; the same
 * end of the call if there never was one. */
bool rpc_find_past(struct net_call *call, const char *name, size_t length, uint64_t *ret_id);
int rpc_unknown_machine(char *text, size_t size, const char *name, size_t length);

/*
 * A unary call whose answer comes after the turn's commit. `answer` sends and
 * finishes, and returns true; or returns false to be called after the next turn. It
 * gets the machine by id again: it may be gone. The question is freed after it, or
 * when the call is closed, whatever comes first; if it is looking, after the look.
 */
struct rpc_question {
	struct turn_waiter waiter;
	struct net_call *call;
	bool (*answer)(struct rpc_question *q, enum machine_error error, const char *why);
	uint64_t machine;
	unsigned row;
	uint64_t args[OP_ARGS];
	uint64_t token, sequence;
	/* Of a question about the past: past.op is the moment. */
	bool is_past;
	struct past past;
	char name[MACHINE_NAME_LENGTH + 1]; /* of a machine to be made */
	/* Of a question that looks into its machine. */
	struct machine_look look;
	bool is_looking;
	void (*tell)(struct rpc_question *q, struct machine *m);
	uint64_t op; /* the machine's last, when it was looked into */
	struct rpc_seen {
		const char *lie; /* NULL: none */
		struct engine_error why;
		struct engine_digest digest;
		struct wire_buffer rows, text;
		bool truncated;
		uint32_t status;
	} seen;
};
struct rpc_question *rpc_ask(struct net_call *call, uint64_t machine,
			     bool (*answer)(struct rpc_question *q, enum machine_error error,
					    const char *why));

/* The question is about a moment of its machine. */
void rpc_ask_past(struct rpc_question *q, uint64_t op);

/* The handlers of unary calls: open() and half_close() see to it that there is one
 * message; closed() frees the question. */
void rpc_unary_open(struct net_call *call);
/* In message(): false if it is not the first one; others are ignored. */
bool rpc_unary_take(struct net_call *call);
bool rpc_unary_is_waiting(struct net_call *call); /* ... for its message */
void rpc_unary_half_close(struct net_call *call);
void rpc_unary_closed(struct net_call *call, enum net_end end);

/* As an answer: `see` looks into the machine in a thread of the pool and fills q->seen,
 * `tell` sends that and finishes. What is answered: as of answer(). */
bool rpc_look(struct rpc_question *q, void (*see)(struct machine_look *l),
	      void (*tell)(struct rpc_question *q, struct machine *m));
/* In `see`: whose look it is. */
struct rpc_question *rpc_looking(struct machine_look *l);

/* Sends rpc.scratch as the one answer and finishes. */
void rpc_reply_scratch(struct net_call *call);

#endif
