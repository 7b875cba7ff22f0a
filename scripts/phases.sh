# Sourced by scripts/test and .ci/run: runs one phase after the other and prints what each took.

phase() {
    local name=$1
    shift
    local start=$SECONDS
    printf '\n=== %s\n' "$name"
    # Not within a condition: there, bash ignores `set -e`, and only the last command of a phase would count.
    set +e
    (
        set -e
        "$@"
    )
    local status=$?
    set -e
    if [ "$status" -ne 0 ]; then
        printf '=== %s: FAILED after %ss\n' "$name" "$((SECONDS - start))" >&2
        exit 1
    fi
    printf '=== %s: %ss\n' "$name" "$((SECONDS - start))"
    PHASES+=("$(printf '%5ss  %s' "$((SECONDS - start))" "$name")")
}

phases_summary() {
    printf '\nPhases:\n'
    printf '  %s\n' "${PHASES[@]}"
    printf '  %5ss  in all\n' "$SECONDS"
}

PHASES=()
