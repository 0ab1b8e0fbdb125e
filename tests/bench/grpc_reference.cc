// grpc_reference.cc - the peer of the RPC bench: gRPC C++ (Debian's libgrpc++),
// callback API, answering Memory.AllocPages at once, with no journal and no
// allocator behind it.
//
//   grpc_reference unix:PATH
#include <cstdio>

#include <grpcpp/grpcpp.h>

#include "zoned/v1/memory.grpc.pb.h"

class Reference final : public zoned::v1::Memory::CallbackService {
	grpc::ServerUnaryReactor *AllocPages(grpc::CallbackServerContext *context,
					     const zoned::v1::AllocPages *,
					     zoned::v1::AllocPagesResult *result) override
	{
		result->mutable_outcome()->set_op(++ops_);
		result->set_pfn(229376);
		result->set_zone(zoned::v1::ZONE_HIGHMEM);
		auto *reactor = context->DefaultReactor();
		reactor->Finish(grpc::Status::OK);
		return reactor;
	}

	std::atomic<uint64_t> ops_{0};
};

int main(int argc, char **argv)
{
	if (argc != 2) {
		std::fprintf(stderr, "usage: grpc_reference unix:PATH\n");
		return 2;
	}
	Reference service;
	grpc::ServerBuilder builder;

	builder.AddListeningPort(argv[1], grpc::InsecureServerCredentials());
	builder.RegisterService(&service);
	builder.BuildAndStart()->Wait();
	return 0;
}
