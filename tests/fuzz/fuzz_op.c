/*
 * fuzz_op.c - an Op, an OpContext and an inspection's question as the services read them.
 * The first byte says which.
 */
#include "codec.h"
#include "contract_tables.h"
#include "fuzz.h"
#include "wire.h"

static void check(bool ok, const struct codec_error *why)
{
	/* Whatever is refused is refused with a sentence. */
	FUZZ_CHECK(ok || why->text[0]);
}

static void read_op(struct wire_reader message)
{
	const struct codec_context inherited = {.machine = "m", .machine_length = 1};
	struct codec_op op = {0};
	struct codec_error why = {""};
	struct wire_reader inner;
	uint32_t code;
	bool ok = codec_read_choice(message, &code, &inner, &why);

	check(ok, &why);
	if (!ok)
		return;
	ok = codec_read_op(code, inner, &inherited, &op, &why);
	check(ok, &why);
	if (ok) {
		uint8_t sum = 0;

		FUZZ_CHECK(op.code == code && op.data_len <= 64 << 10);
		FUZZ_CHECK(codec_is_utf8(op.context.owner, op.context.owner_length));
		/* All of it is there to be read. */
		for (uint32_t i = 0; i < op.data_len; i++)
			sum ^= op.data[i];
		(void)*(volatile uint8_t *)&sum;
	}
	free(op.list);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct wire_reader message = {bytes + 1, bytes + length};
	struct codec_error why = {""};
	struct codec_context context = {0};
	uint64_t args[OP_ARGS];

	if (!length)
		return 0;
	codec_init();
	if (bytes[0] == 0)
		read_op(message);
	else if (bytes[0] == 1)
		check(codec_read_context(message, &context, &why), &why);
	else
		check(codec_read_question(bytes[0] % contract_nr_inspections, message, args, &why),
		      &why);
	return 0;
}
