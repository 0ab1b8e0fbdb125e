/*
 * bench_trace.c - how fast recorded workloads are replayed in the engine: allocations and
 * frees a second, each compared with the frame that Linux gave. No journal and no events
 * (detail ops); reading the text is not counted. Medians of seven rounds.
 */
#include <stdio.h>

#include "bench.h"
#include "conformance.h"

int main(void)
{
	static const char *const traces[] = {"686-pae-1G", "686-pae-1G-fill"};
	static struct conformance_report r;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("detail ops, no journal, medians of %d rounds  (to reach: 2 million/s)\n",
	       BENCH_ROUNDS);
	for (unsigned i = 0; i < sizeof traces / sizeof traces[0]; i++) {
		double rates[BENCH_ROUNDS];
		char path[512];

		snprintf(path, sizeof path, SOURCE_DIR "/tests/linux/traces/%s", traces[i]);
		for (unsigned round = 0; round < BENCH_ROUNDS; round++) {
			if (!conformance_check(path, CONFORMANCE_TRACE, &r)) {
				fprintf(stderr, "%s: %s\n", path, r.difference);
				return 1;
			}
			rates[round] = (double)r.agreed * 1e3 / (double)r.play_ns;
		}
		printf("  %-34s %9.2f million/s\n", traces[i], bench_median(rates, BENCH_ROUNDS));
	}
	return 0;
}
