#!/bin/sh
# rustc as cargo-fuzz calls it (RUSTC_WRAPPER), with coverage and debug assertions for our own crates alone: counted through,
# the ciphers of others would take a hundred times as long and lead the search astray.
crate= before=
for word; do
    [ "$before" = --crate-name ] && crate=$word
    before=$word
done
case $crate in buri_* | engine) exec "$@" ;; esac
for word; do
    shift
    case $word in
    -Cpasses=* | -Cllvm-args=-sanitizer-coverage* | -Cdebug-assertions*) ;;
    *) set -- "$@" "$word" ;;
    esac
done
exec "$@"
