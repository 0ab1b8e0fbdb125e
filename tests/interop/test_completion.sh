#!/usr/bin/env bash
# Completion as each shell does it, and as the command behind it answers.
#
#     test_completion.sh BINARY_DIR
set -euo pipefail
build=$1
work=$(mktemp -d)
export ZONED_ADDRESS=unix:$work/socket PATH=$build/client:$PATH
daemon=
trap '[ -z "$daemon" ] || kill "$daemon"; rm -rf "$work"' EXIT

expect() { # WHAT WANT GOT
	[ "$2" = "$3" ] || { printf '%s: wanted\n%s\ngot\n%s\n' "$1" "$2" "$3"; exit 1; }
}
offered() { zonectl completion -- "$@" | cut -f1; }

# Without a daemon nothing hangs, and nothing is said but what is known.
expect "no daemon" "" "$(offered alloc -m '' 2>&1)"
"$build/server/zoned" --listen "$ZONED_ADDRESS" --history "$work/h.db" --log-level error &
daemon=$!
until zonectl health >/dev/null 2>&1; do sleep 0.05; done
zonectl machine create board --ram 64M >/dev/null
zonectl machine create other --ram 64M >/dev/null

expect commands $'kmap\nkmap-atomic\nkmap-local\nkmap-window' "$(offered kmap)"
expect "after a global flag" "alloc" "$(offered -m board all)"
expect subcommands $'destroy\ndigest' "$(offered machine d)"
expect flags "--order" "$(offered alloc --or)"
expect "global flags" $'--timeout' "$(offered alloc --ti)"
expect "values" $'GFP_HIGHUSER\nGFP_HIGHUSER_MOVABLE' "$(offered alloc --gfp GFP_HIGHU)"
expect "values behind =" "--gfp=GFP_USER" "$(offered alloc --gfp=GFP_U)"
expect "values behind =, bash's way" "GFP_USER" "$(offered alloc --gfp = GFP_U)"
expect "the last of several flags" "GFP_KERNEL|__GFP_ZERO" "$(offered alloc --gfp 'GFP_KERNEL|__GFP_Z')"
expect "a required argument by position" "GFP_USER" "$(offered alloc GFP_U)"
expect machines $'board\nother' "$(offered alloc -m '')"
expect "machines by position" "board" "$(offered machine get b)"
expect "a machine's configuration" "LINUX_6_1" "$(offered machine create x --preset LI)"
expect "a split" $'2G\n2G_OPT' "$(offered machine create x --split 2)"
expect "a level of detail" "notable" "$(offered machine create x --detail n)"
expect "lessons" "pkmap" "$(offered lesson pk)"
expect "events to follow" $'steal' "$(offered tail --event ste)"
expect "ops to follow" $'kmap-local' "$(offered tail --op kmap-l)"
expect "what a drawing is coloured by" "migratetype" "$(offered map --color mi)"
expect "layouts" $'rows\nhilbert' "$(offered map --layout '')"
expect "back ends" "kernel" "$(offered run --backend k)"
expect "shells" "fish" "$(offered completion f)"
expect "a sentence of help" $'steal\tA request was served from the lists of another migratetype.' \
	"$(zonectl completion -- tail --event ste)"
expect "what explain knows" $'WINDOW_PKMAP' "$(offered explain WINDOW_PK)"
expect "help" "vmallocinfo" "$(offered help vmalloci)"
expect "nothing fits" "" "$(offered no-such-command --fl)"
expect "nothing was run" '"ops": 0' "$(zonectl machine get board --json | grep -o '"ops": [0-9]*')"

bash_offers() { # LINE: what bash would offer for it
	bash --norc -c '
		source <(zonectl completion bash)
		compopt() { :; }
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
		_zonectl
		printf "%s\n" "${COMPREPLY[@]}"' bash "$@"
}
expect "bash" $'GFP_HIGHUSER\nGFP_HIGHUSER_MOVABLE' "$(bash_offers zonectl alloc --gfp GFP_HIGHU)"
expect "bash, nothing" "" "$(bash_offers zonectl no-such --x)"

if command -v zsh >/dev/null; then
	zsh -f -c 'source <(zonectl completion zsh | sed "s/^if .*//")
		_describe() { print -l -- ${offered%%:*}; }
		words=(zonectl alloc --gfp GFP_HIGHU) CURRENT=4
		_zonectl' >"$work/zsh"
	expect "zsh" $'GFP_HIGHUSER\nGFP_HIGHUSER_MOVABLE' "$(cat "$work/zsh")"
fi
if command -v fish >/dev/null; then
	expect "fish" $'GFP_HIGHUSER\nGFP_HIGHUSER_MOVABLE' \
		"$(fish --no-config -c 'zonectl completion fish | source; complete -C "zonectl alloc --gfp GFP_HIGHU"' | cut -f1)"
fi
echo "completion: all as expected"
