/*
 * reflection.c - server reflection, v1 and v1alpha.
 *
 * The two versions differ in their names alone, so one handler serves both with v1's
 * messages. Every request is answered by itself: a file always comes with everything
 * that it imports, the wanted one first, whatever was sent before on the stream.
 *
 * The descriptors are those that the contract was generated from (contract_protobuf.h).
 * Extensions are found by reading them again: nobody asks for those often enough to
 * keep an index.
 *
 * A client that asks faster than it reads is held back: while more than OUTPUT_HIGH
 * bytes wait for it, its call is paused.
 */
#include <stdlib.h>
#include <string.h>

#include "contract_protobuf.h"
#include "google/protobuf/descriptor.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "standard.h"

enum { OUTPUT_HIGH = 256 * 1024 };

typedef Grpc__Reflection__V1__ServerReflectionRequest request_t;
typedef Grpc__Reflection__V1__ServerReflectionResponse response_t;

#define REQUEST(name)  GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##name
#define RESPONSE(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##name

/* ---- finding ---- */

/* Index of a file, or -1. */
static int find_file(const char *name)
{
	for (unsigned i = 0; i < contract_nr_files; i++) {
		if (strcmp(contract_files[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

static int compare_symbol(const void *name, const void *symbol)
{
	return strcmp(name, ((const struct contract_symbol *)symbol)->name);
}

static int find_symbol(const char *name)
{
	const struct contract_symbol *symbol =
	    bsearch(name, contract_symbols, contract_nr_symbols, sizeof(*symbol), compare_symbol);

	return symbol ? (int)symbol->file : -1;
}

/* Extensions of `type` in a file: their numbers into `numbers` (NULL: only counted). */
static size_t list_extensions(unsigned file, const char *type, int32_t *numbers)
{
	Google__Protobuf__FileDescriptorProto *f = google__protobuf__file_descriptor_proto__unpack(
	    NULL, contract_files[file].length, contract_files[file].bytes);
	size_t n = 0;

	if (!f)
		return 0;
	for (size_t i = 0; i < f->n_extension; i++) {
		const char *extendee = f->extension[i]->extendee;

		if (strcmp(extendee + (*extendee == '.'), type) != 0)
			continue;
		if (numbers)
			numbers[n] = f->extension[i]->number;
		n++;
	}
	google__protobuf__file_descriptor_proto__free_unpacked(f, NULL);
	return n;
}

/* The numbers of all extensions of a type, to be freed. */
static int32_t *all_extensions(const char *type, size_t *ret_n)
{
	size_t n = 0;
	int32_t *numbers;

	for (unsigned i = 0; i < contract_nr_files; i++)
		n += list_extensions(i, type, NULL);
	numbers = malloc((n + 1) * sizeof(*numbers));
	if (!numbers)
		return NULL;
	n = 0;
	for (unsigned i = 0; i < contract_nr_files; i++)
		n += list_extensions(i, type, numbers + n);
	*ret_n = n;
	return numbers;
}

static int find_extension(const char *type, int32_t number)
{
	for (unsigned file = 0; file < contract_nr_files; file++) {
		size_t n = list_extensions(file, type, NULL);
		int32_t *numbers = n ? malloc(n * sizeof(*numbers)) : NULL;
		bool found = false;

		if (!numbers)
			continue;
		n = list_extensions(file, type, numbers);
		for (size_t i = 0; i < n; i++)
			found |= numbers[i] == number;
		free(numbers);
		if (found)
			return (int)file;
	}
	return -1;
}

/* ---- answering ---- */

static void send_response(struct net_call *call, request_t *request, response_t *response)
{
	size_t size;

	response->valid_host = request->host;
	response->original_request = request;
	size = grpc__reflection__v1__server_reflection_response__get_packed_size(response);
	grpc__reflection__v1__server_reflection_response__pack(response, net_send_room(call, size));
}

static void send_error(struct net_call *call, request_t *request, enum net_status code,
		       const char *text)
{
	response_t response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
	Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;

	error.error_code = (int32_t)code;
	error.error_message = (char *)text;
	response.message_response_case = RESPONSE(ERROR_RESPONSE);
	response.error_response = &error;
	send_response(call, request, &response);
}

/* Appends what a file imports to `order`, which `seen` has no file twice in. */
static unsigned add_imports(const struct contract_file *file, unsigned *order, bool *seen,
			    unsigned n)
{
	for (unsigned i = 0; i < file->nr_imports; i++) {
		if (seen[file->imports[i]])
			continue;
		seen[file->imports[i]] = true;
		order[n++] = file->imports[i];
	}
	return n;
}

/* Sends a file and everything that it imports, directly or not. */
static void send_file(struct net_call *call, request_t *request, int file)
{
	response_t response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
	Grpc__Reflection__V1__FileDescriptorResponse files =
	    GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
	ProtobufCBinaryData *bytes = calloc(contract_nr_files, sizeof(*bytes));
	unsigned *order = calloc(contract_nr_files, sizeof(*order)), n = 1;
	bool *seen = calloc(contract_nr_files, sizeof(*seen));

	if (!bytes || !order || !seen) {
		send_error(call, request, NET_RESOURCE_EXHAUSTED, "out of memory");
	} else if (file < 0) {
		send_error(call, request, NET_NOT_FOUND, "not known to this server");
	} else {
		order[0] = (unsigned)file;
		seen[file] = true;
		for (unsigned i = 0; i < n; i++) {
			const struct contract_file *f = &contract_files[order[i]];

			bytes[i] = (ProtobufCBinaryData){f->length, (uint8_t *)f->bytes};
			n = add_imports(f, order, seen, n);
		}
		files.n_file_descriptor_proto = n;
		files.file_descriptor_proto = bytes;
		response.message_response_case = RESPONSE(FILE_DESCRIPTOR_RESPONSE);
		response.file_descriptor_response = &files;
		send_response(call, request, &response);
	}
	free(bytes);
	free(order);
	free(seen);
}

static void send_extension_numbers(struct net_call *call, request_t *request, const char *type)
{
	response_t response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
	Grpc__Reflection__V1__ExtensionNumberResponse numbers =
	    GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;

	if (find_symbol(type) < 0) {
		send_error(call, request, NET_NOT_FOUND, "not known to this server");
		return;
	}
	numbers.base_type_name = (char *)type;
	numbers.extension_number = all_extensions(type, &numbers.n_extension_number);
	if (!numbers.extension_number) {
		send_error(call, request, NET_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	response.message_response_case = RESPONSE(ALL_EXTENSION_NUMBERS_RESPONSE);
	response.all_extension_numbers_response = &numbers;
	send_response(call, request, &response);
	free(numbers.extension_number);
}

static void send_services(struct net_call *call, request_t *request)
{
	response_t response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
	Grpc__Reflection__V1__ListServiceResponse list =
	    GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
	Grpc__Reflection__V1__ServiceResponse *services =
	    calloc(contract_nr_services, sizeof(*services));

	list.service = calloc(contract_nr_services, sizeof(*list.service));
	if (!services || !list.service) {
		send_error(call, request, NET_RESOURCE_EXHAUSTED, "out of memory");
	} else {
		for (unsigned i = 0; i < contract_nr_services; i++) {
			grpc__reflection__v1__service_response__init(&services[i]);
			services[i].name = (char *)contract_services[i];
			list.service[i] = &services[i];
		}
		list.n_service = contract_nr_services;
		response.message_response_case = RESPONSE(LIST_SERVICES_RESPONSE);
		response.list_services_response = &list;
		send_response(call, request, &response);
	}
	free(services);
	free(list.service);
}

static void answer(struct net_call *call, request_t *request)
{
	switch (request->message_request_case) {
	case REQUEST(FILE_BY_FILENAME):
		send_file(call, request, find_file(request->file_by_filename));
		break;
	case REQUEST(FILE_CONTAINING_SYMBOL):
		send_file(call, request, find_symbol(request->file_containing_symbol));
		break;
	case REQUEST(FILE_CONTAINING_EXTENSION):
		send_file(call, request,
			  find_extension(request->file_containing_extension->containing_type,
					 request->file_containing_extension->extension_number));
		break;
	case REQUEST(ALL_EXTENSION_NUMBERS_OF_TYPE):
		send_extension_numbers(call, request, request->all_extension_numbers_of_type);
		break;
	case REQUEST(LIST_SERVICES): send_services(call, request); break;
	default:
		send_error(call, request, NET_INVALID_ARGUMENT, "the request asks for nothing");
		break;
	}
}

/* ---- the call ---- */

static void open_cb(struct net_call *call)
{
	(void)call;
}

static void message_cb(struct net_call *call, const uint8_t *bytes, size_t length)
{
	request_t *request =
	    grpc__reflection__v1__server_reflection_request__unpack(NULL, length, bytes);

	if (!request) {
		net_finish(call, NET_INVALID_ARGUMENT, "not a ServerReflectionRequest");
		return;
	}
	answer(call, request);
	grpc__reflection__v1__server_reflection_request__free_unpacked(request, NULL);
	if (net_queued(call) > OUTPUT_HIGH)
		net_pause(call);
}

static void writable_cb(struct net_call *call)
{
	if (net_queued(call) <= OUTPUT_HIGH)
		net_resume(call);
}

static void half_close_cb(struct net_call *call)
{
	net_finish(call, NET_OK, NULL);
}

static void closed_cb(struct net_call *call, enum net_end end)
{
	(void)call, (void)end;
}

static const struct net_handler handler = {
    .open = open_cb,
    .message = message_cb,
    .half_close = half_close_cb,
    .writable = writable_cb,
    .closed = closed_cb,
};

const struct net_method reflection_methods[REFLECTION_METHODS] = {
    {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &handler, NULL, false},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &handler, NULL, false},
};
