/*
 * test_net_fuzz.c - mutated conversations: the server must survive each of them, close
 * every call once, and go on serving.
 *
 *     test_net_fuzz [SEED [ROUNDS]]
 *
 * Every round takes a correct conversation apart into frames, spoils some of them, and
 * sends the bytes in pieces of random size. What the server answers must still be HTTP/2
 * (the client takes it apart and stops at a lie).
 */
#include "effort.h"
#include "net_fixture.h"

#include "standard.h"

enum { ROUNDS = 600, ALIVE_EVERY = 50, STREAMS = 12 };

static uint64_t seed = 1;
static unsigned rounds;

/* splitmix64 */
static uint64_t random64(void)
{
	uint64_t z = seed += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static size_t below(size_t n)
{
	return (size_t)(random64() % n);
}

static const struct net_method *route(void *user, const char *path, size_t length)
{
	for (unsigned i = 0; i < 2; i++) {
		if (strlen(health_methods[i].path) == length &&
		    memcmp(health_methods[i].path, path, length) == 0)
			return &health_methods[i];
		if (strlen(reflection_methods[i].path) == length &&
		    memcmp(reflection_methods[i].path, path, length) == 0)
			return &reflection_methods[i];
	}
	return echo_route(user, path, length);
}

/* Messages that the services understand, as seeds for spoiled ones. */
static const struct {
	const char *path, *bytes;
	size_t length;
} requests[] = {
    {"/test.Echo/Unary", "hello", 5},
    {"/test.Echo/Stream", "hello", 5},
    {"/test.Echo/Hold", "hello", 5},
    {"/test.Echo/Sleep", "", 0},
    {"/test.Echo/Count", "0123456789abcdef", 16},
    {"/test.Echo/Flood", "\0\0\0\5\0\0\2\0", 8},
    {"/test.Echo/Early", "x", 1},
    {"/test.Echo/Nothing", "x", 1},
    {"/grpc.health.v1.Health/Check", "\n\0", 2},
    {"/grpc.health.v1.Health/Watch", "\n\4nope", 6},
    {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", ":\1*", 3},
    {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "\"\25zoned.v1.Memory.Boot\0",
     23},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "\32\24zoned/v1/types.proto",
     22},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
     "*#\n\036google.protobuf.MessageOptions\20\1", 37},
};

static void put_request(struct h2_bytes *out, uint32_t stream)
{
	size_t which = below(sizeof(requests) / sizeof(requests[0]));
	const struct h2_header headers[] = {
	    {":method", "POST"},
	    {":scheme", "http"},
	    {":path", requests[which].path},
	    {":authority", "localhost"},
	    {"content-type", "application/grpc"},
	    {"grpc-timeout", below(8) ? "1H" : "1n"},
	};
	struct h2_bytes framed = {0};
	uint8_t end;

	h2_put_headers(out, stream, 0, headers, 6);
	for (size_t n = 1 + below(3); n > 0; n--) {
		const uint8_t prefix[5] = {0, 0, 0, 0, (uint8_t)requests[which].length};

		h2_bytes_add(&framed, prefix, 5);
		h2_bytes_add(&framed, requests[which].bytes, requests[which].length);
	}
	/* One in eight has a byte of its message spoiled. */
	if (!below(8))
		framed.at[below(framed.length)] = (uint8_t)random64();
	end = below(4) ? END : 0;
	for (size_t at = 0; at < framed.length;) {
		size_t part = 1 + below(framed.length - at);

		h2_frame(out, NGHTTP2_DATA, at + part == framed.length ? end : 0, stream,
			 framed.at + at, part);
		at += part;
	}
	h2_bytes_free(&framed);
}

static void put_control(struct h2_bytes *out)
{
	uint8_t payload[64];
	const uint8_t types[] = {NGHTTP2_PING,	   NGHTTP2_RST_STREAM, NGHTTP2_WINDOW_UPDATE,
				 NGHTTP2_SETTINGS, NGHTTP2_PRIORITY,   NGHTTP2_GOAWAY};
	const size_t lengths[] = {8, 4, 4, 6, 5, 8};
	size_t which = below(6);
	uint32_t stream =
	    which == 0 || which == 3 || which == 5 ? 0 : (uint32_t)below(STREAMS) * 2 + 1;

	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = below(3) ? 0 : (uint8_t)random64();
	h2_frame(out, types[which], 0, stream, payload, lengths[which]);
}

/* Flips, drops, repeats or inserts somewhere; now and then not at all. */
static void spoil(struct h2_bytes *b)
{
	struct h2_bytes copy = {0};
	size_t at = below(b->length), n = below(b->length - at) % 64;

	switch (below(6)) {
	case 0: b->at[at] ^= (uint8_t)(1u << below(8)); break;
	case 1: b->at[at] = (uint8_t)random64(); break;
	case 2: b->length = at; break;
	case 3:
		h2_bytes_add(&copy, b->at, at);
		h2_bytes_add(&copy, b->at + at + n, b->length - at - n);
		break;
	case 4:
		h2_bytes_add(&copy, b->at, at + n);
		h2_bytes_add(&copy, b->at + at, b->length - at);
		break;
	default: break;
	}
	if (copy.length) {
		h2_bytes_free(b);
		*b = copy;
	}
}

static void send_in_pieces(struct h2_client *c, const struct h2_bytes *b)
{
	for (size_t at = 0; at < b->length;) {
		size_t part = 1 + below(b->length - at);

		if (!h2_write(c, b->at + at, part))
			return;
		at += part;
		if (!below(3))
			h2_pump(c);
		if (!below(16))
			echo_resume_all();
	}
}

static void one_round(void)
{
	struct h2_bytes bytes = {0};
	struct h2_client c;

	for (uint32_t i = 0; i < STREAMS; i++) {
		put_request(&bytes, i * 2 + 1);
		if (!below(3))
			put_control(&bytes);
	}
	for (size_t n = below(4); n > 0 && bytes.length > 1; n--)
		spoil(&bytes);
	h2_connect(&c, &loop, address);
	c.keep_windows = !below(2);
	h2_start(&c, below(4) ? 0 : NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)below(100));
	send_in_pieces(&c, &bytes);
	if (below(2))
		h2_pump(&c);
	h2_close(&c);
	h2_bytes_free(&bytes);
}

static void test_fuzz(void **state)
{
	(void)state;
	print_message("seed %llu, %u rounds\n", (unsigned long long)seed, rounds);
	health_set(true);
	for (unsigned i = 0; i < rounds; i++) {
		uint64_t before = seed;

		one_round();
		/* Health changes while watchers of all kinds come and go. */
		health_set(i % 2);
		if (i % ALIVE_EVERY == 0) {
			print_message("round %u: seed %llu\n", i, (unsigned long long)before);
			assert_server_alive();
		}
	}
	assert_true(echo_stats.opened > rounds);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {SERVED(test_fuzz)};

	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0);
	rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : effort(ROUNDS);
	fixture_route = route;
	return cmocka_run_group_tests_name("net fuzz", tests, NULL, NULL);
}
