# shellcheck shell=bash
# What the scripts need of the machine: says what is missing, installs it where it may, names the command where it may not.
# Sourced, from the repository's root.

rust_wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

say() { printf '%s\n' "$*" >&2; }

# version_at_least HAVE WANTED
version_at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

# Runs apt-get as root, or through sudo where that asks nothing (or there is someone to ask).
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
    sudo "$@"
  else
    return 1
  fi
}

# install_packages PACKAGE...: false, with the command to run by hand, where it could not.
install_packages() {
  local quiet=(env DEBIAN_FRONTEND=noninteractive apt-get -y -qq)
  if ! command -v apt-get >/dev/null; then
    say "missing: $* (Debian's names); this system has no apt-get, install them with its own package manager"
    return 1
  fi
  say "installing $*"
  # The package lists may be missing or old: one try with them as they are, one with fresh ones.
  if as_root "${quiet[@]}" install "$@" >/dev/null 2>&1; then return; fi
  if as_root "${quiet[@]}" update >/dev/null 2>&1 && as_root "${quiet[@]}" install "$@" >/dev/null; then return; fi
  say "could not install $*; run: sudo apt-get update && sudo apt-get install -y $*"
  return 1
}

# A C compiler and linker, for the crates that carry C.
need_compiler() {
  if command -v cc >/dev/null && echo 'int main(void){return 0;}' | cc -x c -o /dev/null - 2>/dev/null; then return; fi
  install_packages build-essential
}

# Whether cargo is here and new enough. rustup fetches the version that rust-toolchain.toml names by itself.
cargo_is_good() {
  command -v cargo >/dev/null && version_at_least "$(cargo --version 2>/dev/null | awk '{print $2}')" "$rust_wanted"
}

# The version of a package that apt would install, empty for none.
apt_candidate() { apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ && $2 != "(none)" {print $2}'; }

need_cargo() {
  [[ -d $HOME/.cargo/bin ]] && PATH=$PATH:$HOME/.cargo/bin
  if cargo_is_good; then return; fi
  local have
  have=$(cargo --version 2>/dev/null | awk '{print $2}') || true
  if version_at_least "$(apt_candidate cargo)" "$rust_wanted"; then
    install_packages cargo rustc && cargo_is_good && return
  elif [[ -z $have && -n $(apt_candidate rustup) ]]; then
    install_packages rustup && cargo_is_good && return
  fi
  say "Rust $rust_wanted or newer is needed${have:+, this machine has $have}. Get it with:"
  say "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\""
  return 1
}

# Sets python to an interpreter of at least this version (as 3.11).
need_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
    if command -v "$name" >/dev/null && version_at_least "$("$name" -c 'import platform; print(platform.python_version())')" "$1"
    then
      # shellcheck disable=SC2034 # read by those who source this
      python=$name
      return
    fi
  done
  if ! command -v python3 >/dev/null && install_packages python3 && need_python "$1"; then return; fi
  say "Python $1 or newer is needed, this machine has $(python3 --version 2>&1 || echo none)"
  return 1
}

# pip, or a venv that brings one: what fetches models and test clients. After need_python.
need_pip() {
  if "$python" -c 'import ensurepip, venv' 2>/dev/null; then return; fi
  install_packages python3-pip "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
}

# PostgreSQL's server, for the tests that share a journal.
need_postgres() {
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || install_packages postgresql
}

# What sets the clock of one process, for the tests of clocks that are set.
need_faketime() {
  compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || install_packages faketime
}

# Azure's storage emulator in this folder, for the tests that speak with it.
need_azurite() {
  # The last that Debian's node runs.
  local folder=$1 wanted=3.35.0
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then install_packages nodejs npm || return 1; fi
  if [[ $(node -p "require('$folder/node_modules/azurite/package.json').version" 2>/dev/null) == "$wanted" ]]; then return; fi
  npm install --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error "azurite@$wanted" >/dev/null
}
