/*
 * fuzz_boot.c - a kernel's boot messages, plain or gzipped, and its command line.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "boot_log.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct boot_log log = {0}, options = {0};
	char path[32], *cmdline = strndup((const char *)bytes, length);
	int fd = memfd_create("messages", 0);

	FUZZ_CHECK(fd >= 0 && cmdline);
	FUZZ_CHECK(write(fd, bytes, length) == (ssize_t)length);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (boot_log_read_file(path, &log)) {
		FUZZ_CHECK(log.nr_e820 <= BOOT_MAX_E820);
		for (uint32_t i = 0; i < log.nr_e820; i++)
			FUZZ_CHECK(log.e820[i].type >= BOOT_E820_USABLE &&
				   log.e820[i].type <= BOOT_E820_UNUSABLE);
	}
	FUZZ_CHECK(strnlen(log.wrong_option, sizeof log.wrong_option) < sizeof log.wrong_option);
	close(fd);
	boot_log_options(cmdline, &options);
	FUZZ_CHECK(strnlen(options.wrong_option, sizeof options.wrong_option) <
		   sizeof options.wrong_option);
	free(cmdline);
	return 0;
}
