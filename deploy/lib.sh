# lib.sh - what quickstart and check share: packages, builds, and talking about them.
# Sourced by bash with `set -euo pipefail`, from the top of the checkout.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"
logs=$top/build/logs
mkdir -p "$logs"
jobs=$(nproc)

# Debian packages by what needs them.
build_packages=(gcc make cmake ninja-build pkg-config libc6-dev python3 python3-protobuf
	protobuf-compiler protobuf-c-compiler libprotobuf-dev libprotobuf-c-dev
	libuv1-dev libnghttp2-dev libsqlite3-dev libzstd-dev libjansson-dev liblua5.4-dev libedit-dev libncurses-dev
	zlib1g-dev libcmocka-dev)
run_packages=(sqlite3)
test_packages=(clang clang-format clang-tidy libclang-rt-14-dev qemu-system-x86 gdb sqlite3
	python3-grpcio python3-grpc-tools python3-pandas git mandoc zsh fish chromium)
bench_packages=(g++ libgrpc++-dev protobuf-compiler-grpc nghttp2-client)

say() { printf '%s\n' "$*"; }

# step NAME COMMAND...: runs quietly, shows the log only when it fails.
step() {
	local name=$1 log began
	shift
	log=$logs/${name//[^A-Za-z0-9]/_}.log
	began=$SECONDS
	printf '  %-44s ' "$name"
	if "$@" >"$log" 2>&1; then
		printf 'ok  %4ds\n' $((SECONDS - began))
	else
		printf 'FAILED\n'
		tail -n "${STEP_TAIL:-60}" "$log" >&2
		say "whole log: ${log#"$top"/}" >&2
		return 1
	fi
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		say "missing packages, and neither root nor sudo to install them: $*" >&2
		return 1
	fi
}

installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

# need PACKAGE...: installs those that are missing.
need() {
	local missing=() p
	for p in "$@"; do
		installed "$p" || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	export DEBIAN_FRONTEND=noninteractive
	step "package lists" as_root apt-get update -q || true
	step "install ${#missing[@]} packages" as_root apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# A node that can run @grpc/grpc-js, from wherever it is; Debian's if there is none.
need_node() {
	command -v node >/dev/null && command -v npm >/dev/null && return 0
	need nodejs npm
}

# build PRESET [TARGET...]
build() {
	local preset=$1
	shift
	step "configure $preset" cmake --preset "$preset"
	step "build $preset" cmake --build --preset "$preset" -j "$jobs" ${1:+--target "$@"}
}
