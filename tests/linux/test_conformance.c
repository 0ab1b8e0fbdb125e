/*
 * test_conformance.c - every recording in this folder agrees, in as many things as were
 * recorded; and one that was changed does not.
 *
 * The counts are those of the files, so that nothing is passed over in silence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* After the four above and stdint.h, as cmocka wants it. */
#include "conformance.h"
#include <cmocka.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORDED SOURCE_DIR "/tests/linux/"

/* Everything that the pattern finds; returns how many things agreed. */
static uint64_t check_all(const char *pattern, enum conformance_kind kind, size_t files)
{
	struct conformance_report r;
	uint64_t agreed = 0;
	glob_t found;

	assert_int_equal(glob(pattern, 0, NULL, &found), 0);
	assert_int_equal(found.gl_pathc, files);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		const char *path = found.gl_pathv[i];

		assert_int_equal(conformance_kind_of(path), kind);
		if (!conformance_check(path, kind, &r))
			fail_msg("%s: %llu of %llu agree: %s", path, (unsigned long long)r.agreed,
				 (unsigned long long)r.compared, r.difference);
		print_message("%s: %llu%s%s\n", path + sizeof RECORDED - 1,
			      (unsigned long long)r.agreed, *r.note ? "; " : "", r.note);
		agreed += r.agreed;
	}
	globfree(&found);
	return agreed;
}

static void boots(void **state)
{
	(void)state;
	assert_int_equal(check_all(RECORDED "boots/*", CONFORMANCE_BOOT, 36), 1984);
}

static void sequences(void **state)
{
	(void)state;
	assert_int_equal(check_all(RECORDED "recordings/*/seq*.jsonl.gz", CONFORMANCE_SEQUENCE, 33),
			 55521);
}

static void exhaustion(void **state)
{
	(void)state;
	assert_int_equal(
	    check_all(RECORDED "recordings/*/exhaust.jsonl.gz", CONFORMANCE_SEQUENCE, 7), 32307419);
}

static void kernel_mappings(void **state)
{
	(void)state;
	assert_int_equal(check_all(RECORDED "recordings/*/kmap.jsonl.gz", CONFORMANCE_KMAP, 7),
			 5862);
}

static void constants(void **state)
{
	(void)state;
	assert_int_equal(check_all(RECORDED "recordings/*/const*.jsonl.gz", CONFORMANCE_CONST, 13),
			 2114);
}

/* Every frame that Linux gave, in 390,834 allocations of real workloads. */
static void traces(void **state)
{
	(void)state;
	assert_int_equal(check_all(RECORDED "traces/*", CONFORMANCE_TRACE, 6), 746760);
}

/* ---- a recording that was changed ---- */

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* A folder of its own, with the boot messages of a recorded machine. */
static void begin_folder(char folder[64], const char *dmesg)
{
	char command[512];

	snprintf(folder, 64, "/tmp/zoned-conformance-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(command, sizeof command, "cp %s %s/dmesg && chmod u+w %s/dmesg", dmesg, folder,
		 folder);
	assert_int_equal(system(command), 0);
}

static void end_folder(const char *folder)
{
	char command[128];

	snprintf(command, sizeof command, "rm -r %s", folder);
	assert_int_equal(system(command), 0);
}

/* One frame of the tenth op is another: what came before still agrees, and the report
 * says which op it is, what both gave, and the prefix. */
static void changed_sequence(void **state)
{
	char folder[64], path[128], command[1024];
	struct conformance_report r;

	(void)state;
	begin_folder(folder, RECORDED "recordings/686-pae-512M/dmesg");
	snprintf(path, sizeof path, "%s/seqX.jsonl", folder);
	snprintf(command, sizeof command,
		 "zcat " RECORDED "recordings/686-pae-512M/seqA_mix.jsonl.gz |"
		 "sed '/\"t\":\"op\",\"i\":9,/s/\"pfn\":/\"pfn\":1/' > %s",
		 path);
	assert_int_equal(system(command), 0);
	assert_int_equal(conformance_kind_of(path), CONFORMANCE_SEQUENCE);
	assert_false(conformance_check(path, CONFORMANCE_SEQUENCE, &r));
	assert_int_equal(r.agreed, 9);
	assert_int_equal(r.compared, 1400);
	assert_non_null(strstr(r.difference, "op 9: status "));
	assert_non_null(strstr(r.difference, "shortest prefix: its first 10 ops"));
	end_folder(folder);
}

static void changed_constant(void **state)
{
	char folder[64], path[128];
	struct conformance_report r;

	(void)state;
	begin_folder(folder, RECORDED "recordings/686-pae-512M/dmesg");
	snprintf(path, sizeof path, "%s/const.jsonl", folder);
	write_file(path, "{\"t\":\"const\",\"k\":\"LAST_PKMAP\",\"v\":512}\n"
			 "{\"t\":\"const\",\"k\":\"PAGE_SIZE\",\"v\":8192}\n"
			 "{\"t\":\"const\",\"k\":\"nobody's\",\"v\":1}\n");
	assert_false(conformance_check(path, CONFORMANCE_CONST, &r));
	assert_int_equal(r.agreed, 1);
	assert_int_equal(r.compared, 3);
	assert_string_equal(r.difference, "PAGE_SIZE is 4096 (0x1000), Linux has 8192 (0x2000)");
	end_folder(folder);
}

/* Nothing compared is no agreement. */
static void nothing_to_compare(void **state)
{
	char folder[64], path[128];
	struct conformance_report r;

	(void)state;
	begin_folder(folder, RECORDED "recordings/686-pae-512M/dmesg");
	snprintf(path, sizeof path, "%s/seq.jsonl", folder);
	write_file(path, "");
	assert_false(conformance_check(path, CONFORMANCE_SEQUENCE, &r));
	write_file(path, "not JSON\n");
	assert_false(conformance_check(path, CONFORMANCE_SEQUENCE, &r));
	assert_non_null(strstr(r.difference, "no JSON"));
	snprintf(path, sizeof path, "%s/gone.jsonl", folder);
	assert_int_equal(conformance_kind_of(path), CONFORMANCE_NONE);
	assert_false(conformance_check(path, CONFORMANCE_NONE, &r));
	end_folder(folder);
}

/* ---- the command ---- */

static void command_line(void **state)
{
	char agree[] = RECORDED "boots/686-pae-2G", none[] = RECORDED "boots/686-pae-2G/vm",
	     name[] = "conformance", help[] = "--help", wrong[] = "--wrong";

	(void)state;
	assert_int_equal(conformance_command(2, (char *[]){name, help, NULL}), 0);
	assert_int_equal(conformance_command(1, (char *[]){name, NULL}), 2);
	assert_int_equal(conformance_command(2, (char *[]){name, wrong, NULL}), 2);
	assert_int_equal(conformance_command(2, (char *[]){name, agree, NULL}), 0);
	assert_int_equal(conformance_command(3, (char *[]){name, agree, none, NULL}), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(boots),
	    cmocka_unit_test(sequences),
	    cmocka_unit_test(exhaustion),
	    cmocka_unit_test(kernel_mappings),
	    cmocka_unit_test(constants),
	    cmocka_unit_test(traces),
	    cmocka_unit_test(changed_sequence),
	    cmocka_unit_test(changed_constant),
	    cmocka_unit_test(nothing_to_compare),
	    cmocka_unit_test(command_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
