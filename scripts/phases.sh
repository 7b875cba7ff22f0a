# Sourced by scripts/test and .ci/run: runs phases one after the other and prints how long each took.

phase() {
    local name=$1
    shift
    local start=$SECONDS
    printf '\n=== %s\n' "$name"
    # Not within a condition: there, bash ignores `set -e`, and only a phase's last command would count.
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
    printf '  %5ss  total\n' "$SECONDS"
}

PHASES=()
