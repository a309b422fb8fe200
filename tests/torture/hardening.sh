#!/bin/sh
# What `make release` promises, read off the programs that it built.
#
#     tests/torture/hardening.sh build/release/server build/release/client
passed=0
failed=0

# expect STATUS TEXT PATTERN WHAT: what grep says of the text. 0: it has such a line.
expect() {
    printf '%s\n' "$2" | grep -E -e "$3" >/dev/null
    if [ $? = "$1" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "$program: FAILED: $4"
    fi
}

if ! command -v readelf >/dev/null; then
    echo 'hardening: SKIPPED: no readelf, package binutils'
    [ "$CI" = true ] && exit 1
    echo '0 passed, 0 failed, 1 skipped'
    exit 0
fi

for program; do
    headers=$(readelf -W -h -l "$program")
    dynamic=$(readelf -W -d "$program")
    symbols=$(readelf -W --dyn-syms "$program")
    made=$(readelf --debug-dump=info "$program" 2>/dev/null | grep DW_AT_producer)

    expect 0 "$headers" 'Type: *DYN' 'position-independent (-pie)'
    expect 0 "$dynamic" 'FLAGS_1.*PIE' 'position-independent (-pie)'
    expect 0 "$headers" 'GNU_RELRO' 'read-only relocations (-z relro)'
    expect 0 "$dynamic" 'BIND_NOW|FLAGS_1.*NOW' 'all of them at the start (-z now)'
    expect 0 "$headers" 'GNU_STACK.* RW ' 'a stack that does not execute'
    expect 0 "$symbols" '__stack_chk_fail' '-fstack-protector-strong'
    expect 0 "$symbols" '__[a-z]+_chk' '_FORTIFY_SOURCE'
    expect 0 "$made" ' -O2' '-O2'
    expect 1 "$dynamic" 'R(UN)?PATH' 'no search path of its own'
    expect 1 "$dynamic" 'TEXTREL' 'no code that is written at the start'
done

echo "hardening: $passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
