#!/bin/sh
# What `make release` promises, read off the programs that it built.
#
#     tests/torture/hardening.sh build/release/server build/release/client
passed=0
failed=0

# expect TEXT PATTERN WHAT: the text has a line like it.
expect() {
    if printf '%s\n' "$1" | grep -E -e "$2" >/dev/null; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "$program: FAILED: $3"
    fi
}

# refuse TEXT PATTERN WHAT: it has none.
refuse() {
    if printf '%s\n' "$1" | grep -E -e "$2" >/dev/null; then
        failed=$((failed + 1))
        echo "$program: FAILED: $3"
    else
        passed=$((passed + 1))
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

    expect "$headers" 'Type: *DYN' 'position-independent (-pie)'
    expect "$dynamic" 'FLAGS_1.*PIE' 'position-independent (-pie)'
    expect "$headers" 'GNU_RELRO' 'read-only relocations (-z relro)'
    expect "$dynamic" 'BIND_NOW|FLAGS_1.*NOW' 'all of them at the start (-z now)'
    expect "$headers" 'GNU_STACK.* RW ' 'a stack that does not execute'
    expect "$symbols" '__stack_chk_fail' '-fstack-protector-strong'
    expect "$symbols" '__[a-z]+_chk' '_FORTIFY_SOURCE'
    expect "$made" ' -O2' '-O2'
    refuse "$dynamic" 'R(UN)?PATH' 'no search path of its own'
    refuse "$dynamic" 'TEXTREL' 'no code that is written at the start'
done

echo "hardening: $passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
