# Prologue of everything a person or a check starts from the tree; sourced by bash, not run.
# CONTRIBUTING.md, "Launchers", shows one.
#
# Before sourcing, set `usage` to the text of --help. Then:
#   launch_help "$@"           answers --help (and -h) with $usage, exit 0, and builds nothing
#   launch_ready [TARGET...]   calls scripts/setup with the words of $launch_setup (default:
#                              build test), then brings the programs named, or all, up to date
#                              in the build tree of $launch_preset (default: release); from
#                              here on $root is the working directory
# What sourcing gives: $root (of the source tree), `say` and `die` (to stderr); launch_ready
# adds $build (build/<preset>) and $bin ($build/bin). Progress goes to stderr, and nothing is
# said when all is up to date. TROTH_JOBS limits the compilers that run at a time.
# shellcheck shell=bash

[ -n "${BASH_VERSION:-}" ] || { echo 'launchers need bash' >&2; exit 2; }
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
launch_name=$(readlink -f "$0")
launch_name=${launch_name#"$root"/}

# One line to stderr, under the launcher's name.
say() { printf '%s: %s\n' "$launch_name" "$*" >&2; }

# The last words: what, why, what to do. Exit code 2: asked wrongly, or not ready.
die() { say "$*"; exit 2; }

launch_help() {
  local argument
  for argument in "$@"; do
    case $argument in
      --) return 0 ;;
      --help | -h) printf '%s\n' "${usage:?launchers set usage before they call launch_help}"; exit 0 ;;
    esac
  done
}

# Waits while another launcher builds in this tree. Descriptor 9 is open on the lock file.
launch_lock() {
  if ! flock --nonblock 9; then
    say "waits for another build in build/$launch_preset"
    flock 9
  fi
}

# Configures if that was never done, or by older presets.
launch_configure() {
  if [ -f "$build/build.ninja" ] && [ ! CMakePresets.json -nt "$build/build.ninja" ]; then return; fi
  say "configures build/$launch_preset"
  if ! cmake --preset "$launch_preset" >"$build/configure.log" 2>&1; then
    cat "$build/configure.log" >&2
    die "configuring failed; the reason is above"
  fi
  touch "$build/build.ninja"
}

launch_build() {
  local todo from=$SECONDS
  todo=$(ninja -C "$build" -n "$@" 2>&1) || true
  case $todo in *'no work to do.'*) return ;; esac
  say "builds build/$launch_preset"
  NINJA_STATUS='[%f/%t %es] ' ninja -C "$build" -j "${TROTH_JOBS:-$(nproc)}" \
    -k "${launch_failures:-1}" "$@" >&2 ||
    die "the build failed; the compiler's words are above"
  say "built in $((SECONDS - from)) s"
}

launch_ready() {
  launch_preset=${launch_preset:-release}
  build=$root/build/$launch_preset
  # shellcheck disable=SC2034  # for the launcher
  bin=$build/bin
  cd "$root"
  # shellcheck disable=SC2086  # words on purpose
  scripts/setup ${launch_setup:-build test} || die "scripts/setup failed; its words are above"
  mkdir -p "$build"
  ( launch_lock; launch_configure; launch_build "$@" ) 9>"$build/.launch.lock" || exit $?
}
